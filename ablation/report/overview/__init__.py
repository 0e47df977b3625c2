"""A report's first screen as plain data: the strip of facts, the best arm, what can be claimed, the ladder and each family.

HTML, Markdown and the terminal are all rendered from it. It is made of the plan, the runs and their differences: no
predictions, no figures.
"""

from ablation.report.overview.best import Best
from ablation.report.overview.families import Family, Row
from ablation.report.overview.overview import Overview, overview
from ablation.report.overview.strip import Fact
from ablation.report.overview.words import MARKDOWN, PLAIN, Marks, sentences

__all__ = ["MARKDOWN", "PLAIN", "Best", "Fact", "Family", "Marks", "Overview", "Row", "overview", "sentences"]
