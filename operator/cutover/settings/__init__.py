"""The administrator's settings, and how the operator authenticates to a provider."""
