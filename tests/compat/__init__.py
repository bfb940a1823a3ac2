"""Unmodified clients of other services against a served node."""
