"""What a train job costs beside the loops that people write, on the same photographs; see `make bench-training`."""
