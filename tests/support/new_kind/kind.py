"""The kind `reindex`: builds an index of the search engine again."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from cutover.field_path import Json
from cutover.schema.model import Label
from cutover.steps.shared.job_kind import JobKind


class Reindex(JobKind):
    """Builds an index of the search engine again, and restores the former one on rollback.

    Idempotent as every `JobKind` is.
    """

    key: ClassVar[str] = "reindex"
    index: Label = Field(description="Name of the index.")

    def job_template(self) -> Json:
        """The tool, which builds the index beside the one that is in use."""
        return self._tool("build")

    def undo_template(self) -> Json:
        """The tool, which puts the former one into use again."""
        return self._tool("restore")

    def _tool(self, verb: str) -> Json:
        container = {"name": "search-tool", "image": "search-tool:1", "args": [verb, self.index]}
        return {"spec": {"template": {"spec": {"containers": [container]}}}}
