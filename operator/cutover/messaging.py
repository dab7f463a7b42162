"""Messages to people, and what we need of those who deliver them. The part of the ports that is about them; pure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Tone(StrEnum):
    """The colour of a message where it is shown."""

    INFO = "info"
    SUCCESS = "success"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Message:
    """A message to people."""

    title: str
    text: str
    tone: Tone = Tone.INFO


@dataclass(slots=True)
class Delivery:
    """The delivery of one message; updated by the sender.

    Attributes:
        over: it was delivered, or has failed for good.
        error: why it has failed, in words of ours; empty when it was delivered.
    """

    over: bool = False
    error: str = ""


class Messenger(Protocol):
    """Receivers of messages, configured by the administrator and named by plans."""

    def knows(self, provider: str) -> bool:
        """Whether a provider of this name is configured."""

    def names(self) -> Sequence[str]:
        """Names of all providers, for messages."""

    def post(self, provider: str, message: Message, patience: float, key: Hashable = None) -> Delivery:
        """Send a message in the background; never blocks, never raises. The messages of one provider keep their order.

        Args:
            provider: its name in the settings.
            message: what is sent.
            patience: seconds after which an undelivered message has failed.
            key: a message posted under the same key before in this process is not sent again; its delivery is returned.
        """

    def delivery(self, key: Hashable) -> Delivery | None:
        """The delivery posted under a key by this process; None when there was none, or it was long ago."""
