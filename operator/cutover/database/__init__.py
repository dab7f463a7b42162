"""The runner: what a database Job runs. The operator's process imports nothing of it.

`main.py` reads a payload, `works/` has what each kind does in whichever database, `engines/` how one engine does it. The truth
is in the database itself: the schema `cutover` there says what was done, in the same transaction that did it.
"""
