"""The loop, the step, and what is saved between them."""
