"""Statistics of runs: means, paired differences, tests, effects. Reads no store and writes no document."""
