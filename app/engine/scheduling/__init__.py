"""Who steps next: queues, turns and row budgets. Imports no torch."""
