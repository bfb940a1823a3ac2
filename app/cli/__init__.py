"""The `foxhound` command: reads the settings, starts processes, speaks to a person."""
