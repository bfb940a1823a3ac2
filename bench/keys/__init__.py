"""What the check of an API key costs a request: `/classify` with a fake engine, with and without a key."""
