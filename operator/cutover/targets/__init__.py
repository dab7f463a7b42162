"""The objects a plan changes: claim, fence, snapshot, compare, write, restore. Every write to a target is made here."""
