"""What the commands do, a file for one or for a few that belong together. `cli` has their options; the work is done in the rooms below."""
