"""Shows a plan to people: in a terminal, as JSON, as a page. Reads the plan and its status, and writes nothing."""
