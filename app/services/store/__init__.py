"""A database and its data folder as one store: identity check, report, recovery after a crash, copy of the records."""
