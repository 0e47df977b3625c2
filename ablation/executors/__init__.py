"""Where jobs run: each executor takes jobs and gives events."""
