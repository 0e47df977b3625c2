"""From a study's arms to a tree of jobs: what is shared, what is done, why the rest is needed, what it costs. Nothing is run here."""
