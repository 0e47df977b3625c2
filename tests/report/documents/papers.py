"""Studies for the LaTeX tables, how their source is read, and what LaTeX makes of it."""

import re
import shutil
import subprocess

import pytest

from tests.report.studies import LADDER, arm, study

NASTY = (
    r"a & b % c $ d # e _ f { g } h ~ i ^ j \ k",
    r"[optional]",
    "*",
    r'"quoted" <i>`it`</i> | größe 層 ε → ß',
    r"\input{/etc/passwd} \end{table*} }}} \fi",
    "two\nlines -- and\ta tab\x07",
    "%",
)
WAYS = (
    *LADDER[:3],
    arm("baseline/with-mixup", "baseline", "add_one", factors={"with": "mixup"}, change=LADDER[2]["change"]),
    arm("mixup/without-cb", "mixup", "drop_one", factors={"without": "cb"}, change={"sampler.name": ["class_balanced", "shuffle"]}),
)
CLASSES = {"one column": "article", "two columns": "[twocolumn]article", "two columns on A4": "[twocolumn,a4paper]article"}
needs_pdflatex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")


def hostile():
    """A study in which every text is meant to break LaTeX."""
    name, first, second, third, fourth, last, label = NASTY
    arms = [
        arm(name, None, label=label, note=fourth, labels={"bundle": first, "lag": second}, published={first: 12.3}),
        arm(first, name, label=third, baseline=name, labels={second: fourth}),
        arm(second, name, "variant", baseline=name, note=last, same_as=first, change={third: [None, fourth]}),
        arm(last, second, "sweep", baseline=name, label=first),
        arm("%/x", None, "condition", "%/x", condition="%"),
    ]
    recorded = study(arms, broken={(first, 1)}, chosen={(last, 0): fourth})
    recorded.study = recorded.plan["study"] = r"st_udy & \co %"
    return recorded


def table(text, name):
    """The cells of each row of a table, by the arm's name, and the ids of its runs."""
    rows = re.findall(r"^(.*) \\\\ % (.*)\n% runs: (.*)$", body(text, name), re.MULTILINE)
    return {arm_name: (cells.split(" & "), ids.split()) for cells, arm_name, ids in rows}


def header(text, name):
    """The table's header."""
    return body(text, name).split("\\toprule\n")[1].partition(r" \\")[0].split(" & ")


def body(text, name):
    """The whole float."""
    return text.split(f"\\newcommand{{\\AblateTable{name}}}{{%")[1].partition("\n}\n")[0]


def numbers(cell):
    """The numbers in a cell, with their signs."""
    return [float(number) for number in re.findall(r"[+-]?\d+\.\d+", cell.replace("$", ""))]


def compiled(folder, text, source=None, document_class="article", runs=1):
    """The log of pdflatex's last run on a document that has the report's text beside it, and the number of pages."""
    (folder / "report.tex").write_text(text, encoding="utf-8")
    command_line = re.search(r"^% compile with \(twice\): pdflatex -jobname=tables '(.*)'$", text, re.MULTILINE)[1]
    options, _, name = document_class.rpartition("]")
    source = source or command_line.replace(r"\documentclass{article}", f"\\documentclass{options}{']' if options else ''}{{{name}}}")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "-no-shell-escape", "-jobname=tables", source]
    for _ in range(runs):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stdout[-2000:]
    pages = re.search(r"Output written on tables\.pdf \((\d+) page", done.stdout)
    return (folder / "tables.log").read_text(errors="replace"), int(pages[1]) if pages else 0


def assert_clean(log):
    """Nothing is wider than its column by more than a point, too high for a page, undefined or defined twice."""
    lines = [line for line in log.splitlines() if re.match(r"Overfull|LaTeX Warning: (?!Label\(s\) may)|Missing character|!", line)]
    too_wide = [float(points) for line in lines for points in re.findall(r"^Overfull \\.box \(([\d.]+)pt", line)]
    assert not [line for line in lines if not line.startswith("Overfull")]
    assert max(too_wide, default=0.0) <= 1
