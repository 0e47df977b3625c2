"""What the commands do, one file for each or for a few that belong together. `cli` reads their options; the work is in the rooms below."""
