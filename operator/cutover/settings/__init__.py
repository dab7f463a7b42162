"""What the administrator decides, and how the operator authenticates to a provider."""
