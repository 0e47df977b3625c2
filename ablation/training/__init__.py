"""One stage trained and tested: settings, the loop, the step, states, checkpoints, evaluation. Which stages there are, planning says."""
