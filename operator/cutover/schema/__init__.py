"""Base types of plans and settings: the base model, field types, validation errors as sentences, JSONPath. Knows no kind."""
