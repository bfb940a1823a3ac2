"""The routes of the public API, one module per resource. Async functions run on the event loop, others on threads."""
