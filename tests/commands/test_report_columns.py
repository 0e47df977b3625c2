"""`ablate report --columns` is for LaTeX, whose tables have columns to choose."""

import pytest

from ablation.commands import report as command
from ablation.errors import ConfigError
from tests.report.studies import study


def options(**more):
    usual = {"document_format": "latex", "output": None, "arms": (), "metric": "", "sort": None, "only_changed": False, "reference": None}
    return command.ReportOptions(**(usual | {"columns": "arm,accuracy, verdict"} | more))


def test_they_reach_the_tables(monkeypatch, capsys):
    """In their order, with or without spaces after the commas."""
    monkeypatch.setattr(command, "open_recorded", lambda file, profile: study())
    assert command.report_on(None, None, options(), check=None, watching=False) == 0
    assert "arm & accuracy & verdict \\\\" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("document_format", "check", "found"), [(None, None, "with markdown"), ("html", None, "with html"), ("latex", "report.tex", "--check")]
)
def test_elsewhere_they_are_refused(document_format, check, found):
    """Where they would have no effect, before anything is read."""
    with pytest.raises(ConfigError, match=f"--columns: found it .*{found}.*; expected it with --format latex"):
        command.report_on(None, None, options(document_format=document_format), check=check, watching=False)
