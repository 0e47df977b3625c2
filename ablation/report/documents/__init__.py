"""The report in each of its forms, as text and as files; what it says is written in `sections`, and nothing is computed here."""
