"""Meters of energy: what a machine can tell of the joules that were used, and how well."""
