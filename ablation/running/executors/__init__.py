"""Where jobs run, one file for each kind of place, behind the Protocol `Executor` of `running.scheduler`."""
