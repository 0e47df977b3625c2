"""Real engines: those that a test needs are started on free ports, and it is skipped where they are not installed."""
