"""Bad luck on purpose: a real node under random load, disconnects, bad requests and faults; see `make soak`."""
