"""Kinds of work, which the rooms above know only by name and by the Protocol in `study.task`: image classification, and one's own code."""
