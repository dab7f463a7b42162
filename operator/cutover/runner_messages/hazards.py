"""What is dangerous about a statement, as types that a plan allows one by one. Pure."""

from __future__ import annotations

from enum import StrEnum


class Hazard(StrEnum):
    """One danger; `allow` of a step lists those that its author accepts."""

    REWRITES_TABLE = "RewritesTable"
    SCANS_TABLE = "ScansTable"
    BUILDS_INDEX = "BuildsIndex"
    LOCKS_TABLE = "LocksTable"
    DROPS_DATA = "DropsData"
    RENAMES = "Renames"
    TRUNCATES = "Truncates"
    UNBOUNDED_DML = "UnboundedDml"
    DML_AFTER_BLOCKING_DDL = "DmlAfterBlockingDdl"
    DML_IN_BLOCK = "DmlInBlock"
    DEFAULT_HIDES_BACKFILL = "DefaultHidesBackfill"
    COLUMNS_BY_POSITION = "ColumnsByPosition"
    CASCADES = "Cascades"
    NEEDS_REVIEW = "NeedsReview"
