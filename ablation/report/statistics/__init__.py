"""What the numbers say: means, paired differences, tests and orders of rungs, by formulas alone; no text and no file is made here."""
