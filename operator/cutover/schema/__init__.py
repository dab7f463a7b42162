"""Base types of everything people write: the base model, field types, validation errors as sentences, JSONPath. Knows no kind."""
