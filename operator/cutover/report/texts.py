"""Text for a terminal that cannot steer it: a plan, a status, a server or a kubeconfig may hold any character.

All that the command line prints as text is made of these: its screens of `Text`, its lines by way of `escape_controls`. It must be done
when a text is made, because what is shown in place of a control character needs room, and rich drops some without a word.
"""

from __future__ import annotations

from typing import Any, Final

import rich.text
from rich.style import Style

CONTROL_CHARS: Final = frozenset((*range(32), *range(127, 160))) - frozenset(map(ord, "\n\t"))
"""Code points that a terminal may obey: C0 without newline and tab, DEL, C1."""
_SHOWN: Final = {code: f"\\x{code:02x}" for code in CONTROL_CHARS}


def escape_controls(text: str) -> str:
    """The text with each control character as an escape of two hexadecimal digits."""
    return text.translate(_SHOWN)


class Text(rich.text.Text):
    """A text of rich in which every control character is visible."""

    def __init__(self, text: str = "", style: str | Style = "", **how: Any) -> None:
        super().__init__(escape_controls(text), style, **how)

    def append(self, text: rich.text.Text | str, style: str | Style | None = None) -> Text:
        """Add a text, or one that is one already."""
        super().append(escape_controls(text) if isinstance(text, str) else text, style)
        return self
