"""What pydantic needs: the base of the models, mistakes as sentences, JSONPath. Knows no kind."""
