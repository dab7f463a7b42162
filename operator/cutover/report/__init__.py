"""A plan for people: reads what stands in the status, writes nothing."""
