"""The spec of a MigrationPlan and what follows from it alone: rules for the saga, windows, rights, the CRD. Pure."""
