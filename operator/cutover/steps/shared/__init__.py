"""What several kinds share: dry runs before the first step, progress of rollouts, repairs and their limit. No kind lives here."""
