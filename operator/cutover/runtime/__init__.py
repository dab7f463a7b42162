"""What keeps the process going: the queue of plans, health, events, logs. Knows no kind and no rule of the saga."""
