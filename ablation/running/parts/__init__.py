"""A study's parts, each a command of its own on any machine that sees `mlruns/`: their folder, their logs, and who follows them.

What starts them is no matter here: a user, or an engine, of which `executors/` has a file each.
"""
