"""The routes of the public API, a module for each resource."""
