"""How a command ends."""

DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130
