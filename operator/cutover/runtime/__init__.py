"""Keeps the process running: queue, Lease, health, events, messages, metrics, logs. Knows no kind and no rule of the saga."""
