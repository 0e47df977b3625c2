"""Kinds of work, which the rooms above know only by name and by the Protocol in `study.task`. Image classification is the only one."""
