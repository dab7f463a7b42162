"""What the errors of a YAML parser mean to an author: one sentence with the way out. Pure; for files and for texts in fields."""

from __future__ import annotations

from typing import Final

import yaml
from yaml.parser import ParserError
from yaml.scanner import ScannerError

TEMPLATE: Final = (
    "a mapping cannot be a key; if this is a template such as {{ .Values.name }}, render it first or put it in quotes"
)
_COLON: Final = (
    'a value has a colon: quote it, or write "patch: |" (not >, which joins lines) and indent the YAML below it'
)
_TAB: Final = "a tab is used for indentation; use spaces"


def sentence(error: yaml.MarkedYAMLError, text: str) -> str:
    """What is wrong in a text, without the place."""
    problem, mark = str(error.problem), error.problem_mark
    if "mapping values are not allowed" in problem:
        return _COLON
    if "unhashable key" in problem:
        return TEMPLATE
    if "tab character" in problem:
        return _TAB
    if "cannot start any token" in problem and mark is not None:  # only one of the two parsers says which character
        found = text[mark.index : mark.index + 1]
        return _TAB if found == "\t" else f"a value cannot begin with {found}; put it in quotes"
    return f"{problem}; check indentation and quotes" if isinstance(error, ParserError | ScannerError) else problem
