"""Basic tools: files, digests, signals, memory, randomness, the identity of code. They know nothing of studies, arms or training."""
