"""Fine-tuning beside a linear probe, on real photographs, on the CPU."""
