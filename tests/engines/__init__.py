"""Real engines: those that a test needs are started on free ports, and it is skipped where they are not installed."""

import os

import pytest

slow = pytest.mark.skipif(os.environ.get("ABLATE_ENGINES") != "all", reason="takes half a minute or more; ABLATE_ENGINES=all runs it")
