"""One turn of one plan: read, advance, save, act, advance, save. Called by `app.py`."""
