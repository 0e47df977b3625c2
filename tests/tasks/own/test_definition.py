"""What a study's file may say of its own training code, and what is told of what it may not."""

import re

import pytest

from ablation.errors import ConfigError
from ablation.study.config import load
from ablation.tasks.own.definition import define
from ablation.tasks.own.planner import hides_failures
from tests.own import PRINTED, write_command, write_function

FUNCTION = {"function": "own_training:train"}
COMMAND = "python script.py --seed {seed} {args}"
COMMAND_WITH_OUT = "python script.py {seed} {out} {args}"


def definition(file):
    """What the file declares."""
    return define(load(file), file.parent)


def test_a_text_is_a_function_or_a_command(tmp_path):
    """By its form; the words of a command are split once, as a shell would, and shown as they are written."""
    assert definition(write_function(tmp_path)).function == "own_training:train"
    written = definition(write_command(tmp_path, task="python 'my script.py' --seed {seed} --tag=a,{lr} {args}"))
    assert written.command == ("python", "my script.py", "--seed", "{seed}", "--tag=a,{lr}", "{args}")
    assert written.text == "python 'my script.py' --seed {seed} --tag=a,{lr} {args}"
    assert written.places == {"seed", "lr", "args"}


def test_a_base_may_be_left_out(tmp_path):
    """A function has defaults of its own."""
    assert load(write_function(tmp_path)).base == {}


@pytest.mark.parametrize(("written", "seconds"), [("30s", 30), ("45m", 2700), ("1.5h", 5400), ("2d", 172_800), (90, 90), (0.5, 0.5)])
def test_times(tmp_path, written, seconds):
    """With a unit, or in seconds."""
    assert definition(write_function(tmp_path, task=FUNCTION | {"timeout": written, "grace": written})).timeout == seconds


def test_metrics(tmp_path):
    """Their full names, units, margins and decimals; the first is the headline, and val/NAME a metric of validation."""
    forms = {
        "mae": {"better": "lower", "unit": "m", "margin": 0.5, "decimals": 5, "title": "error"},
        "val/mae": {"better": "lower"},
        "test/f1": {"better": "higher", "unit": "percent"},
    }
    metrics = definition(write_function(tmp_path, metrics=forms)).metrics
    assert [metric.name for metric in metrics] == ["test/mae", "validation/mae", "test/f1"]
    assert [metric.is_headline for metric in metrics] == [True, False, False]
    first = metrics[0]
    assert (first.title, first.better, first.unit, first.margin, first.decimals) == ("error", "lower", "m", 0.5, 5)


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"task": 3}, "task: found 3; expected a function (my_module:train), a command"),
        ({"task": {}}, "task: expected a function (task: my_module:train) or a command"),
        ({"task": FUNCTION | {"command": COMMAND}}, "and one of them"),
        ({"task": FUNCTION | {"tmeout": "1h"}}, "Did you mean 'timeout'?"),
        ({"task": FUNCTION | {"timeout": "1.2.3h"}}, "expected a time, such as 30s, 45m or 12h"),
        ({"task": FUNCTION | {"timeout": "soon"}}, "expected a time, such as 30s, 45m or 12h"),
        ({"task": FUNCTION | {"threads": 0}}, "task.threads"),
        ({"task": FUNCTION | {"gpus": 2}}, "task.gpus"),
        ({"task": FUNCTION | {"code": ["*.py"]}}, "task.code: is for commands; expected none: what the function uses counts by itself"),
        ({"task": FUNCTION | {"env": {"A": [1]}}}, "task.env.A: found [1]; expected text or a number"),
        ({"task": FUNCTION | {"data": [{"path": "x", "by": "name"}]}}, "task.data.0.by"),
        ({"task": {"function": "own_training"}}, "expected a function as module:function"),
        ({"curves": {"loss": "loss ([0-9.]+)"}}, "curves: is for commands; expected run.log(step, {...}) in the function"),
        ({"metrics": {}}, "metrics: is missing; expected the numbers that come back"),
        ({"metrics": {"mae": {}}}, "metrics.mae.better"),
        ({"metrics": {"mae": {"better": "less"}}}, "metrics.mae.better"),
        ({"metrics": {"mae": 3}}, "metrics.mae: found 3; expected a mapping such as {better: lower, unit: m}"),
        ({"metrics": {"m ae": {"better": "lower"}}}, "is no name of a metric"),
        ({"metrics": {"mae": {"better": "lower"}, "test/mae": {"better": "lower"}}}, "is declared twice"),
        ({"metrics": {"mae": {"better": "lower", "from": "mae (.*)"}}}, "metrics.mae.from: is for commands"),
        ({"metric": "mea"}, "metric: unknown metric 'mea'"),
        ({"groups": "thirds"}, "groups: is for images; expected none where the file has a task"),
        ({"margin": 1}, "margin: is for images; expected a margin for each metric, under metrics"),
        ({"sweeps": {"s": {"over": {"lr": [1.0]}, "choose": "val/loss"}}}, "sweeps.s.choose: found 'val/loss'; expected val/mae, or none"),
    ],
)
def test_mistakes_about_a_function(tmp_path, sections, told):
    """One sentence each, found before any code is imported."""
    with pytest.raises(ConfigError, match=re.escape(told)):
        load(write_function(tmp_path, **sections))


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        (
            {"task": "own_training.train"},
            "task: found 'own_training.train'; expected a function as module:function, or a command with {seed}",
        ),
        ({"task": "python script.py {args}"}, "has neither {seed} nor {settings}"),
        ({"task": "python script.py {seed} | tee log"}, "found '|', which only a shell understands"),
        ({"task": "python 'script.py {seed}"}, "cannot be split into words"),
        ({"curves": {"loss": "loss [0-9"}}, "curves.loss"),
        ({"curves": {"loss": "loss [0-9]+"}}, "expected a regular expression with one group"),
        ({"metrics": {"mae": {"better": "lower", "from": 3}}}, "metrics.mae.from: found 3; expected a pattern"),
        ({"metrics": {"mae": {"better": "lower", "from": {"file": "log.json"}}}}, "metrics.mae.from.at"),
        (
            {"task": COMMAND_WITH_OUT, "metrics": {"mae": {"better": "lower", "from": {"file": "../log.json", "at": "mae"}}}},
            "metrics.mae.from.file: found '../log.json', which other runs may write too; expected a file in {out}",
        ),
        (
            {"task": COMMAND_WITH_OUT, "metrics": {"mae": {"better": "lower", "from": {"file": "/a/log.json", "at": "mae"}}}},
            "metrics.mae.from.file: found '/a/log.json', which other runs may write too",
        ),
        (
            {"task": {"command": COMMAND_WITH_OUT, "classes": ["a", "b", "a"]}},
            "task.classes: found ['a', 'b', 'a']; expected each class once",
        ),
    ],
)
def test_mistakes_about_a_command(tmp_path, sections, told):
    """One sentence each."""
    with pytest.raises(ConfigError, match=re.escape(told)):
        load(write_command(tmp_path, **{"metrics": PRINTED} | sections))


@pytest.mark.parametrize(
    ("line", "hides"),
    [
        ("python train.py | tee log", True),
        ("python train.py; echo done", True),
        ("python train.py || true", True),
        ("set -eo pipefail; python train.py | tee log", False),
        ("python train.py && echo done", False),
        ("python train.py", False),
    ],
)
def test_a_shell_that_hides_failures_is_told(line, hides):
    """Its exit status is that of the last command."""
    assert hides_failures(["bash", "-c", line]) == hides
    assert hides_failures(["bash", "-lc", line, "name", "0"]) == hides
    assert not hides_failures(["bash", "-eo", "pipefail", "-c", line])
    assert not hides_failures(["python", "-c", line])
