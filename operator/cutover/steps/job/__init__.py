"""The kind `job`, in a folder because it outgrew a file.

`spec.py` has its fields, `creation.py` where its Jobs come from, `kind.py` what it does and undoes.
Only `Job` and the label that users set are for the outside.
"""

from cutover.steps.job.kind import SETTLED_LABEL, Job

__all__ = ["SETTLED_LABEL", "Job"]
