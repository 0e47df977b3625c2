"""`metric` in the study's file and in its profiles."""

import pytest
import yaml

from ablation.errors import ConfigError
from ablation.study.config import load
from ablation.study.resolving import load_study
from ablation.study.written import compared, differences, written

BASE = {"data": "digits", "model": "test_efficientnet"}


def write(folder, name="study.yaml", **layers):
    file = folder / name
    file.write_text(yaml.safe_dump({"study": "s", "seeds": [0], "base": BASE, **layers}))
    return file


@pytest.mark.parametrize(
    ("layers", "profile", "expected"),
    [
        ({}, None, "auto"),
        ({"metric": "macro_f1"}, None, "macro_f1"),
        ({"metric": "test/recall/cat"}, None, "test/recall/cat"),
        ({"metric": "kappa", "profiles": {"p": {"base": {"epochs": 2}}}}, "p", "kappa"),
        ({"metric": "kappa", "profiles": {"p": {"metric": "auto"}}}, "p", "auto"),
    ],
)
def test_it_is_the_files_or_the_profiles(tmp_path, layers, profile, expected):
    """By default auto; a profile may have its own, and no other setting."""
    assert load_study(write(tmp_path, **layers), profile).metric == expected


def test_an_extending_file_replaces_it(tmp_path):
    """As any other setting."""
    write(tmp_path, "below.yaml", metric="mcc")
    (tmp_path / "above.yaml").write_text("extends: below.yaml\nmetric: auroc\n")
    (tmp_path / "same.yaml").write_text("extends: below.yaml\nmargin: 1\n")
    assert [load_study(tmp_path / name).metric for name in ("above.yaml", "same.yaml")] == ["auroc", "mcc"]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"metric": "macrof1"}, "metric: unknown metric 'macrof1'; expected one of accuracy, auroc, auto, .*Did you mean 'macro_f1'"),
        ({"metric": "recall/"}, "metric: unknown metric 'recall/'; expected one of .*Did you mean 'recall/CLASS'"),
        ({"metric": "val/accuracy"}, "metric: unknown metric 'val/accuracy'"),
        ({"metric": 3}, "metric: found 3; expected"),
        ({"profiles": {"p": {"metric": "acuracy"}}}, "profiles.p.metric: unknown metric 'acuracy'; .*Did you mean 'accuracy'"),
    ],
)
def test_an_unknown_metric_is_one_sentence(tmp_path, layers, message):
    """With its place and the nearest name."""
    with pytest.raises(ConfigError, match=message):
        load(write(tmp_path, **layers))


def test_another_metric_is_told_as_an_edit(tmp_path):
    """As another margin is; a file that leaves it at its default says what it said before there was the setting."""
    before, after = (load_study(write(tmp_path, **layers)) for layers in ({}, {"metric": "kappa"}))
    assert "metric" not in written(before)
    assert differences(written(after), written(before)) == ["metric kappa was auto"]
    assert differences(written(before), written(after)) == ["metric auto was kappa"]
    assert "study.yaml was edited since: metric kappa was auto" in compared(after, {"file": "study.yaml", "written": written(before)})
    assert compared(before, {"file": "study.yaml", "written": written(load_study(write(tmp_path, metric="auto")))}) == ""
