"""Why a run of the runner ended, and the exit code that follows from it. Pure.

The exit code is for Kubernetes (`podFailurePolicy` of the Job), the reason for people and for the saga.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Final


class ExitCode(IntEnum):
    """How the process ends."""

    OK = 0
    UNEXPECTED = 1
    """A fault of the runner itself; another try may do."""
    VALIDATION_FAILED = 10
    BAD_INPUT = 11
    VERIFY_FAILED = 12
    TRANSACTION_ESCAPED = 13
    LOCKS = 20
    CONNECTION = 21
    INTERRUPTED = 22
    FENCED = 30


FINAL: Final = (
    ExitCode.VALIDATION_FAILED,
    ExitCode.BAD_INPUT,
    ExitCode.VERIFY_FAILED,
    ExitCode.TRANSACTION_ESCAPED,
    ExitCode.FENCED,
)
"""Codes after which the same payload cannot succeed: the Job fails at once, whatever its backoffLimit."""


class RunnerReason(StrEnum):
    """Why the runner ended; CamelCase, as conditions show it."""

    DONE = "Done"
    ALREADY_DONE = "AlreadyDone"
    NOTHING_TO_UNDO = "NothingToUndo"

    VALIDATION_FAILED = "ValidationFailed"
    NOT_DONE = "NotDone"

    INVALID_PAYLOAD = "InvalidPayload"
    INVALID_URL = "InvalidDatabaseURL"
    AUTHENTICATION = "AuthenticationFailed"
    TLS_REQUIRED = "TLSRequired"
    TLS_FAILED = "TLSFailed"
    DATABASE_NOT_FOUND = "DatabaseNotFound"
    UNSUPPORTED_VERSION = "UnsupportedVersion"
    PRIVILEGE = "InsufficientPrivilege"
    POOLER = "PoolerInTheWay"
    NEWER_JOURNAL = "NewerJournal"
    CHECKPOINT_VERSION = "CheckpointVersionMismatch"
    SCRIPT_EMPTY = "ScriptEmpty"
    SCRIPT_SYNTAX = "ScriptSyntax"
    SCRIPT_CHANGED = "ScriptChanged"
    DOWN_MISSING = "DownMissing"
    TRANSACTION_STATEMENT = "TransactionStatementInScript"
    NON_TRANSACTIONAL = "NonTransactionalStatement"
    HAZARD = "HazardNotAllowed"
    STATEMENT_FAILED = "StatementFailed"
    TABLE_NOT_FOUND = "TableNotFound"
    COLUMN_NOT_FOUND = "ColumnNotFound"
    GENERATED_COLUMN = "GeneratedColumn"
    NO_USABLE_KEY = "NoUsableKey"
    NULLABLE_KEY = "NullableKey"
    MATCHES_NOTHING = "SelectorMatchesNothing"
    NO_ROW = "NoRow"

    VERIFY_FAILED = "VerifyFailed"
    ESCAPED = "TransactionEscaped"

    LOCKS = "LockBudgetExhausted"
    CONNECTION_REFUSED = "ConnectionRefused"
    CONNECTION_LOST = "ConnectionLost"
    READ_ONLY = "ReadOnlyServer"
    INTERRUPTED = "Interrupted"
    FENCED = "Fenced"
    UNEXPECTED = "Unexpected"

    @property
    def code(self) -> ExitCode:
        """The exit code of a runner that ends for this reason."""
        return _CODES.get(self, ExitCode.BAD_INPUT)


_CODES: Final = {
    RunnerReason.DONE: ExitCode.OK,
    RunnerReason.ALREADY_DONE: ExitCode.OK,
    RunnerReason.NOTHING_TO_UNDO: ExitCode.OK,
    RunnerReason.VALIDATION_FAILED: ExitCode.VALIDATION_FAILED,
    RunnerReason.NOT_DONE: ExitCode.VALIDATION_FAILED,
    RunnerReason.VERIFY_FAILED: ExitCode.VERIFY_FAILED,
    RunnerReason.ESCAPED: ExitCode.TRANSACTION_ESCAPED,
    RunnerReason.LOCKS: ExitCode.LOCKS,
    RunnerReason.CONNECTION_REFUSED: ExitCode.CONNECTION,
    RunnerReason.CONNECTION_LOST: ExitCode.CONNECTION,
    RunnerReason.READ_ONLY: ExitCode.CONNECTION,  # a standby that a fail-over left: the primary is behind the same name
    RunnerReason.INTERRUPTED: ExitCode.INTERRUPTED,
    RunnerReason.FENCED: ExitCode.FENCED,
    RunnerReason.UNEXPECTED: ExitCode.UNEXPECTED,
}
"""All others are mistakes of the author, which the same payload meets again."""
