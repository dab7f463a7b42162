"""`.status` of a plan: phases, reasons, requests, conditions. Plain frozen values; pure."""
