"""Fine-tuning of a backbone with a linear head, one optimizer step at a time; the engine runs it between requests."""
