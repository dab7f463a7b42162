"""The kind `deploy`, in a folder because it outgrew a file: `spec.py` has its fields, `kind.py` what it does and undoes.

Beside them: `dry_run.py` (what the server would make of it), `preconditions.py` (before the first step). Only `Deploy` is for the
outside.
"""

from cutover.steps.deploy.kind import Deploy

__all__ = ["Deploy"]
