"""The objects a plan changes: claim, fence, snapshot, compare, restore. Every write to a target is made here."""
