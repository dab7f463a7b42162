"""Builds HTML so that no text can get in unescaped: whatever is not made by `tag` is text."""

from __future__ import annotations

import html
from typing import Final

_EMPTY: Final = frozenset({"meta", "br"})


class Html(str):
    """Text that is HTML already. Made here alone."""

    __slots__ = ()


def tag(element: str, /, *children: str | Html, **attributes: str) -> Html:
    """An element. Attributes are spelled with underscores for hyphens, `class_` for class."""
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for key, value in attributes.items())
    if element in _EMPTY:
        return Html(f"<{element}{given}>")
    inner = "".join(child if isinstance(child, Html) else html.escape(child) for child in children)
    return Html(f"<{element}{given}>{inner}</{element}>")


def style(rules: str) -> Html:
    """A style sheet of our own; never anything that came from outside."""
    return Html(f"<style>{rules}</style>")
