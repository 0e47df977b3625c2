"""The ground: files, digests, signals, memory, randomness, the identity of code. It knows nothing of studies, arms or training."""
