"""Training and testing of one stage: settings, loop, step (plain, captured, compiled), states, checkpoints, evaluation; and export."""
