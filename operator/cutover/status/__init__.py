"""What stands in `.status`: phases, reasons, requests, conditions. Plain frozen values; pure."""
