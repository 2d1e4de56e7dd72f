"""Training: a step, a session of many, a trainer on tensors, and runs on disk."""
