"""The spec of a MigrationPlan and what follows from it alone: rules of the saga, windows, permissions, the CRD. Pure."""
