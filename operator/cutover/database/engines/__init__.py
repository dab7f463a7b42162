"""One package per engine behind one protocol (`base.py`)."""
