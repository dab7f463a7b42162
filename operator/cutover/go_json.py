"""Documents in the bytes that Go writes: the API server compares and keeps some of them as they were sent. Pure."""

from __future__ import annotations

import json
from typing import Final

from cutover.field_path import Json

_GO_ESCAPES: Final = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


def as_go_writes(body: Json) -> str:
    """A document in exactly the bytes that Go's encoder would write.

    A test in a JSON patch compares the bytes of a string with what the API server has encoded itself, where ``a&b`` is
    escaped. And the data of a ControllerRevision is stored as it was sent and is immutable. A strategic merge patch encodes
    it again, as the garbage collector does when a plan is deleted with orphan propagation: if the bytes differed, the API
    server would refuse that patch, and the plan could never be deleted.
    """
    text = json.dumps(body, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    return text.translate(_GO_ESCAPES)
