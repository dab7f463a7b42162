"""Text that cannot control the terminal: a plan, a status, a server or a kubeconfig may contain any character.

Everything the command line prints goes through here: screens are made of `Text`, lines of `escape_controls`. It must happen when a
text is made, because an escape needs more columns than the character, and rich silently drops some characters.
"""

from __future__ import annotations

from typing import Any, Final

import rich.text
from rich.style import Style

CONTROL_CHARS: Final = frozenset((*range(32), *range(127, 160))) - frozenset(map(ord, "\n\t"))
"""Code points that may control a terminal: C0 without newline and tab, DEL, C1."""
_ESCAPES: Final = {code: f"\\x{code:02x}" for code in CONTROL_CHARS}


def escape_controls(text: str) -> str:
    """The text with each control character as an escape with two hexadecimal digits."""
    return text.translate(_ESCAPES)


class Text(rich.text.Text):
    """A rich text in which every control character is escaped."""

    def __init__(self, text: str = "", style: str | Style = "", **how: Any) -> None:
        super().__init__(escape_controls(text), style, **how)

    def append(self, text: rich.text.Text | str, style: str | Style | None = None) -> Text:
        """Add a string or another text."""
        super().append(escape_controls(text) if isinstance(text, str) else text, style)
        return self
