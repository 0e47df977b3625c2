"""Documents in each form, as text and as files. Their content comes from `sections`; nothing is computed here."""
