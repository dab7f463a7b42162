"""What the operator and the runner of a database Job tell each other, as frozen values. Pure.

The operator hands the Job a `Payload`. While it works, the runner shows its `Progress`; at its end it leaves a `Result` and an
exit code. Neither carries a credential, a key or a value of a row: what the database holds stays there.
"""
