"""Cutover: one MigrationPlan carries out a whole infrastructure migration, and takes it back when a gate fails."""
