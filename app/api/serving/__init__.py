"""The HTTP servers of an API process: connection limits, parsers and shutdown."""
