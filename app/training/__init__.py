"""Training on frozen features with torch. Imports no HTTP, SQL or pydantic. Runs in the worker."""
