"""What all kinds of jobs share: reading and controlling jobs, event streams, idempotency keys, wait policies."""
