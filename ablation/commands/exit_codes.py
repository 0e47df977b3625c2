"""The exit codes of the commands."""

DONE, FAILED, INTERRUPTED = 0, 1, 130
REFUSED = 2  # for the user's mistakes: `cli` gives it
