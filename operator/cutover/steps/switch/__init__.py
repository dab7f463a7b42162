"""The kind `switch`, in a folder because it outgrew a file: `spec.py` has its fields, `kind.py` what it does and undoes.

Only `Switch` is for the outside.
"""

from cutover.steps.switch.kind import Switch

__all__ = ["Switch"]
