"""What happens while a study runs: what begins next, where, what is shown and recorded of it. What a job does, its task knows."""
