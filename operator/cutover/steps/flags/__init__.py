"""The kind `flags`, in a folder because it outgrew a file: `spec.py` has its fields, `kind.py` what it does and undoes.

Beside them: `preconditions.py` (before the first step), `restart.py` (the restart of workloads). Only `Flags` is for the outside.
"""

from cutover.steps.flags.kind import Flags

__all__ = ["Flags"]
