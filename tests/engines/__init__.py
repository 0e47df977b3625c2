"""Real engines: those that a test needs are started on free ports, and it is skipped where they are not installed."""

import os

import pytest

everything = os.environ.get("ABLATE_ENGINES") == "all"
slow = pytest.mark.skipif(not everything, reason="takes half a minute or more; ABLATE_ENGINES=all runs it")
