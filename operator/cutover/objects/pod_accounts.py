"""Which service accounts a pod spec names. Pure; the one place that knows, asked for everything that brings pods.

A pod gets the token of its own account only: a projected `serviceAccountToken` cannot name another one. So the account is all to check.
"""

from __future__ import annotations

from typing import Final

from cutover.field_path import Json

_FIELDS: Final = ("serviceAccountName", "serviceAccount")
"""The field and its old name. Which of them counts depends on what is there already, so both do."""
_DEFAULT: Final = "default"
"""The account that Kubernetes gives a pod without one."""


def accounts_of(pod: Json) -> frozenset[str]:
    """The accounts that a pod spec may give to its pods, whole or as a merge patch; none when it leaves the account as it is."""
    given = [pod[field] for field in _FIELDS if field in pod]
    named = frozenset(name for name in given if isinstance(name, str) and name)
    return named or frozenset({_DEFAULT} if given else ())
