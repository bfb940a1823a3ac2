"""The servers of an API process: connections, parsers, and how they stop."""
