"""Text that cannot control the terminal it is shown on. Pure; used by the text log and, through report/texts.py, by all that is printed."""

from __future__ import annotations

from typing import Final

_BIDI: Final = (0x61C, *range(0x200E, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Marks, embeddings, overrides and isolates of writing direction: with them a text is read in another order than it has."""
CONTROL_CHARS: Final = frozenset(
    (*range(32), *range(127, 160), 0x2028, 0x2029, *_BIDI),
) - frozenset(map(ord, "\n\t"))
"""Code points that may control a terminal (C0 without newline and tab, DEL, C1), break a line, or change the order of what is read."""
_ESCAPES: Final = {code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" for code in CONTROL_CHARS}  # noqa: PLR2004
_ON_ONE_LINE: Final = _ESCAPES | {ord("\n"): "\\n"}


def escape_controls(text: str) -> str:
    """The text with each control character as an escape with hexadecimal digits."""
    return text.translate(_ESCAPES)


def on_one_line(text: str) -> str:
    """The same, and line breaks as an escape too."""
    return text.translate(_ON_ONE_LINE)
