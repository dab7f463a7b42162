"""Snapshots go when nobody can need them any more, whatever became of the plan."""

from __future__ import annotations

from cutover.adapters.kubernetes import as_go_writes


def test_documents_are_written_as_go_writes_them() -> None:
    """Bytes as `json.Marshal` gives them; the data of a ControllerRevision may not change by a byte."""
    body = {"b": [1, None, True], "a": '<a & b> "é" \u2028\u2029\n'}
    assert as_go_writes(body) == r'{"a":"\u003ca \u0026 b\u003e \"é\" \u2028\u2029\n","b":[1,null,true]}'
