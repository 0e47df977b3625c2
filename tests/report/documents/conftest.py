"""What the tests of documents share."""

import pytest

from ablation.report import figures

MOST_FIGURES = 4


@pytest.fixture
def few_figures(monkeypatch):
    """Only the first figures are drawn: for tests that ask how they are linked or written, not what is on them."""
    pages = figures.pages
    monkeypatch.setattr(figures, "pages", lambda *args: pages(*args)[:MOST_FIGURES])
