"""Builds HTML in which no text stays unescaped: everything that is not made by `tag` is text. Used by page.py alone."""

from __future__ import annotations

import html
from typing import Final

from cutover.runtime.printable import escape_controls

_EMPTY: Final = frozenset({"meta", "br"})


class Html(str):
    """Text that is HTML already. Made only in this file."""

    __slots__ = ()


def tag(element: str, /, *children: str | Html, **attributes: str) -> Html:
    """An element. In names of attributes an underscore stands for a hyphen; `class_` is class."""
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{_text(value)}"' for key, value in attributes.items())
    if element in _EMPTY:
        return Html(f"<{element}{given}>")
    inner = "".join(child if isinstance(child, Html) else _text(child) for child in children)
    return Html(f"<{element}{given}>{inner}</{element}>")


def style(rules: str) -> Html:
    """A style sheet; only for rules written in this package."""
    return Html(f"<style>{rules}</style>")


def _text(text: str) -> str:
    """Text as it was written: no markup, and no characters that are read in another order than they have."""
    return html.escape(escape_controls(text))
