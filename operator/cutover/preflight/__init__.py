"""What a plan needs before the first step, and its effect on everything around its targets. Read-only."""
