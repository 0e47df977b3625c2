"""What every test of one's own training code has."""

import sys

import pytest

from tests.own import imports_undone


@pytest.fixture(autouse=True)
def _imports_undone(monkeypatch):
    """No test imports the code of another, or may import code because another may; nor the bytecode of a file edited within a second."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    with imports_undone():
        yield
