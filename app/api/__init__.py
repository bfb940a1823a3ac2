"""The HTTP layer: routes, request bodies, responses, problems. No SQL, no torch, no file access."""
