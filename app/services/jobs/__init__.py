"""What all kinds of background work share: the job as its users see it, events, idempotency, waiting."""
