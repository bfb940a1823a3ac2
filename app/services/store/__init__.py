"""A database and its data folder: whether they belong together, what lies in them, recovery, copies."""
