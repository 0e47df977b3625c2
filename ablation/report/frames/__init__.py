"""Tidy frames of a recorded study, from a store or a zip. Formulas are in `statistics`, words in `sections`."""
