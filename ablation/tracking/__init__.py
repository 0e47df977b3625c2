"""What is recorded of a study, and where."""
