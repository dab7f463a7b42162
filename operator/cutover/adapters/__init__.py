"""The real ports: every foreign exception becomes one of ours here, and nowhere else."""
