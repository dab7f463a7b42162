"""The kind `traffic`, in a folder because it outgrew a file: `spec.py` has its fields, `kind.py` what it does and undoes.

Beside them: `preconditions.py` (before the first step), `temporary.py` (what stands beside the weights for a while), `sides.py`
(what is ready behind a destination), `drift.py` (what others changed). Only `Traffic` is for the outside.
"""

from cutover.steps.traffic.kind import Traffic

__all__ = ["Traffic"]
