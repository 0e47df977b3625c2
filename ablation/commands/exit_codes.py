"""The exit codes of the commands."""

DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130
