"""Text that cannot control the terminal: a plan, a status, a server or a kubeconfig may contain any character.

Everything the command line prints goes through here: screens are made of `Text`, lines of `escape_controls` (runtime/printable.py). It must happen when a
text is made, because an escape needs more columns than the character, and rich silently drops some characters.
"""

from __future__ import annotations

from typing import Any

import rich.text
from rich.style import Style

from cutover.runtime.printable import escape_controls


class Text(rich.text.Text):
    """A rich text in which every control character is escaped."""

    def __init__(self, text: str = "", style: str | Style = "", **how: Any) -> None:
        super().__init__(escape_controls(text), style, **how)

    def append(self, text: rich.text.Text | str, style: str | Style | None = None) -> Text:
        """Add a string or another text."""
        super().append(escape_controls(text) if isinstance(text, str) else text, style)
        return self
