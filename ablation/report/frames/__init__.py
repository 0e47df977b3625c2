"""What is recorded of a study, read from a store or a zip into tidy frames; formulas live in `statistics`, words in `sections`."""
