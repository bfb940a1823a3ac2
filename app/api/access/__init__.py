"""API keys of requests: the layer that checks them, the scope of every route, and the ids that a caller may name."""
