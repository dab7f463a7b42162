"""What each kind does in a database, in terms of `engines/base.py`. Nothing here knows an engine."""
