"""The `foxhound` command: reads the settings, starts processes, prints results."""
