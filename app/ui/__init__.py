"""The console: pages for people, which talk to the node by its public API alone, from the browser."""
