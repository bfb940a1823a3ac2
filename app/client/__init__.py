"""HTTP client of a Foxhound service, for the command line; imports nothing of the server."""
