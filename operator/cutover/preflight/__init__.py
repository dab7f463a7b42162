"""All that must be there before the first step, and what a plan means for what else is there. Reads only."""
