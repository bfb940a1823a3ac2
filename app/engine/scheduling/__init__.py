"""Scheduling of the device: queues, turns and row budgets. Imports no torch."""
