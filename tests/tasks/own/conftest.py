"""What every test of one's own training code has."""

import pytest

from tests.own import imports_undone


@pytest.fixture(autouse=True)
def _imports_undone():
    """No test imports the code of another, or may import code because another may."""
    with imports_undone():
        yield
