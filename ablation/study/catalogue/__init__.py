"""Pages that explain the techniques a file may name: in Markdown and in a terminal. What a technique is, `techniques` says."""

from ablation.study.catalogue.entries import allowed_values, as_yaml, entries, places
from ablation.study.catalogue.page import escape_markdown, markdown_page
from ablation.study.catalogue.terminal import family_of, overview, terminal_text

__all__ = ["allowed_values", "as_yaml", "entries", "escape_markdown", "family_of", "markdown_page", "overview", "places", "terminal_text"]
