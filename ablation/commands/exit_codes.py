"""The exit codes of the commands."""

DONE, FAILED, INTERRUPTED = 0, 1, 130  # 2, for the user's mistakes, is given by `cli`
