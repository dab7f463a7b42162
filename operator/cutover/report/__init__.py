"""Shows a plan: in a terminal, as JSON, as a page. Reads the plan and its status, and writes nothing."""
