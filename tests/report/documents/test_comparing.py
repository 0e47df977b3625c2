"""Two arms beside one another: what they set, what came out, and how sure that is."""

import itertools
import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from ablation.errors import AblateError, ConfigError
from ablation.report.documents import comparing
from tests.report.studies import LADDER, arm, study

STAGE = {
    "epochs": 6,
    "train": "all",
    "head": "keep",
    "backbone": "train",
    "start": "weights",
    "restart": ["optimizer", "schedule", "average"],
}
SETTINGS = {
    "sampler": {"name": "shuffle"}, "mix": {"name": "none"}, "augment": [{"name": "affine", "degrees": 10.0}],
    "posthoc": {"name": "none"}, "optimizer": {"betas": [0.9, 0.999], "lr": 1e-4}, "epochs": 6,
}  # fmt: skip
HEAD = STAGE | {"epochs": 2, "train": "head", "backbone": "eval"}


def config(stages=(STAGE,), **changed):
    settings = {**SETTINGS, **changed}
    return {"arm": "x", "seed": 0, "settings": settings, "stages": [{**settings, **stage} for stage in stages]}


CB = {"cb": config(sampler={"name": "class_balanced"})}


class Written:
    """A hand-made study whose runs have settings on disk."""

    def __init__(self, folder, recorded, configs):
        self.folder, self.recorded, self.configs = folder, recorded, configs

    def __getattr__(self, name):
        return getattr(self.recorded, name)

    def artifact(self, run_id, name):
        assert name == "config.yaml"
        arm_name = self.recorded.runs.set_index("run_id")["arm"][run_id]
        path = self.folder / f"{arm_name.replace('/', '-')}.yaml"
        path.write_text(yaml.safe_dump(self.configs.get(arm_name, config())), encoding="utf-8")
        return path


@pytest.fixture
def compared(tmp_path):
    """The comparison of two arms of a hand-made study, by title."""

    def compare(first="baseline", second="cb", metric="accuracy", configs=None, recorded=None, **how):
        whole = Written(tmp_path, recorded or study(**how), CB if configs is None else configs)
        parts = comparing.compare(whole, first, second, metric)
        return SimpleNamespace(**{part.title.split(",")[0].split(":")[0].replace(" ", "_"): part for part in parts}, parts=parts, of=whole)

    return compare


def rows(part):
    return {row[0]: row[1:] for row in part.rows}


def test_only_what_differs_is_shown(compared):
    """A setting that both share is no row; the other arm's value comes first, as in a change."""
    part = compared().Settings_that_differ
    assert part.columns == ("setting", "baseline", "cb")
    assert part.rows == (("sampler.name", "shuffle", "class_balanced"),)


@pytest.mark.parametrize(
    ("ours", "expected"),
    [
        ({"mix": {"name": "mixup", "alpha": 0.4}}, {"mix.name": ("none", "mixup"), "mix.alpha": ("–", "0.4")}),
        ({"augment": []}, {"augment.0.name": ("affine", "–"), "augment.0.degrees": ("10", "–"), "augment": ("–", "[]")}),
        ({"optimizer": {"betas": [0.9, 0.99], "lr": 1e-4}}, {"optimizer.betas": ("[0.9, 0.999]", "[0.9, 0.99]")}),
        ({"epochs": 6, "stages": [STAGE | {"train": "head", "backbone": "eval"}]}, {"stages.0.train": ("–", "head")}),
        ({"stages": [STAGE | {"epochs": 4}, HEAD | {"head": "new", "mix": {"name": "mixup", "alpha": 1.0}}]},
         {"stages.0.epochs": ("–", "4"), "stages.1.epochs": ("–", "2"), "stages.1.train": ("–", "head"),
          "stages.1.head": ("–", "new"), "stages.1.mix.name": ("–", "mixup"), "stages.1.mix.alpha": ("–", "1")}),
        ({"stages": [STAGE | {"epochs": 4}, STAGE | {"epochs": 2, "restart": []}]},
         {"stages.0.epochs": ("–", "4"), "stages.1.epochs": ("–", "2")}),
        ({"stages": [STAGE | {"epochs": 4}, HEAD | {"backbone": "train"}]},
         {"stages.0.epochs": ("–", "4"), "stages.1.epochs": ("–", "2"), "stages.1.train": ("–", "head"),
          "stages.1.backbone": ("–", "train")}),
    ],
)  # fmt: skip
def test_settings_are_told_leaf_by_leaf(compared, ours, expected):
    """Techniques, lists and stages by their dotted names; what goes without saying in a stage is not told."""
    assert rows(compared(configs={"cb": config(**ours)}).Settings_that_differ) == expected


def test_equal_settings_say_so(compared):
    """Without any difference there is a sentence in the place of rows."""
    part = compared(configs={}).Settings_that_differ
    assert (part.rows, part.notes[0]) == ((), "no setting differs")


def test_honest_labels_are_told(compared):
    """What a label says of either arm, in its own words."""
    assert compared().Settings_that_differ.notes == ("cb: lag (52.6 % are still initial)", "baseline: lag (52.6 % are still initial)")


def test_values_and_differences_are_those_of_the_runs(compared):
    """Mean, sd, difference over common seeds, interval and p are scipy's on the runs' numbers, and the flips' p a plain count's."""
    comparison = compared(seeds=(0, 1, 2, 3, 4, 5), absent={("cb", 4), ("reweight", 4)})  # another name of cb
    runs = comparison.of.runs
    by_arm = {name: runs[runs["arm"] == name].set_index("seed")["test/balanced_accuracy"] for name in ("cb", "baseline")}
    pairs = 100 * (by_arm["cb"] - by_arm["baseline"]).dropna()
    assert len(pairs) == 5
    test = stats.ttest_1samp(pairs, 0)
    bounds = test.confidence_interval(0.95)
    sums = [abs(sum(sign * value for sign, value in zip(signs, pairs, strict=True))) for signs in itertools.product((1, -1), repeat=5)]
    flips = sum(total > abs(sum(pairs)) - 1e-9 for total in sums) / 32
    cells = rows(comparison.Results)["balanced acc."]
    theirs, ours = 100 * by_arm["baseline"], 100 * by_arm["cb"]
    assert cells[0] == f"{theirs.mean():.2f} ± {theirs.std(ddof=1):.2f}"
    assert cells[1] == f"{ours.mean():.2f} ± {ours.std(ddof=1):.2f}"
    assert cells[2] == f"{pairs.mean():+.2f} [{bounds.low:+.2f}, {bounds.high:+.2f}]"
    assert cells[3:] == (f"{test.pvalue:.3f}", f"{flips:.3f}")


def test_the_chosen_metric_comes_first_and_has_the_verdict(compared):
    """`metric` decides of what the verdict is, with test/ or without; the margin is the plan's."""
    part = compared(metric="test/balanced_accuracy").Results
    assert part.rows[0][0] == "balanced acc."
    assert any(note.startswith("Verdict on balanced accuracy, cb against baseline: ") for note in part.notes)


@pytest.mark.parametrize(
    ("shift", "word"),
    [(0.05, "better"), (-0.05, "worse"), (0.0, "no difference beyond 0.5")],
)
def test_the_verdict_is_that_of_one_test(compared, shift, word):
    """A clear difference is better or worse, a tiny one with little spread is none beyond the margin; nothing is corrected for others."""
    recorded = study(seeds=tuple(range(8)))
    noise = dict(enumerate(np.random.default_rng(0).normal(0, 0.0005, 8)))
    is_ours = recorded.runs["arm"] == "cb"
    base = recorded.runs[recorded.runs["arm"] == "baseline"].set_index("seed")["test/accuracy"]
    recorded.runs.loc[is_ours, "test/accuracy"] = [base[seed] + shift + noise[seed] for seed in recorded.runs.loc[is_ours, "seed"]]
    (verdict,) = [note for note in compared(recorded=recorded).Results.notes if note.startswith("Verdict")]
    assert f": {word}. It is one test, not corrected" in verdict


def test_a_lower_nll_is_better(compared):
    """Of a metric that is better when smaller, the smaller arm is the better one, and no margin is asked of it."""
    recorded = study(seeds=tuple(range(8)))
    recorded.runs["test/nll"] = 1.0 + 0.01 * np.random.default_rng(0).random(len(recorded.runs))
    recorded.runs.loc[recorded.runs["arm"] == "cb", "test/nll"] -= 0.3
    notes = compared(recorded=recorded, metric="nll").Results.notes
    assert any(note.startswith("Verdict on NLL, cb against baseline: better.") for note in notes)
    assert not any("80 % power" in note for note in notes)


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ((0,), "One pair of runs shows no spread"),
        ((0, 1, 2), "with 3 pairs the sign-flip test cannot go below p = 0.25; from 6 pairs on it can reach 0.05"),
    ],
)
def test_too_few_seeds_are_said(compared, seeds, said):
    """One pair shows nothing, and with few the sign-flip test cannot reach 0.05: 2 / 2**n."""
    assert any(said in note for note in compared(seeds=seeds).Results.notes)


def test_enough_seeds_are_not_called_too_few(compared):
    """With six pairs 2 / 2**6 is below 0.05."""
    assert not any("Too few" in note for note in compared(seeds=tuple(range(6))).Results.notes)


def test_without_common_seeds_nothing_is_paired(compared):
    """Values of both are shown, differences of neither, and which seeds were left out."""
    comparison = compared(seeds=(0, 1), absent={("cb", 0), ("reweight", 0), ("baseline", 1)})
    assert rows(comparison.Results)["accuracy"][2:] == ("–", "–", "–")
    assert any("nothing is paired" in note for note in comparison.Results.notes)
    assert [part.title for part in comparison.parts][-1] == "Runs"
    assert len(comparison.parts) == 3
    assert "seeds 0, 1" in comparison.Runs.notes[0]


def test_one_training_under_two_names_is_said(compared):
    """Arms that resolve alike have no test and no image between them."""
    ladder = [*LADDER, arm("again", "baseline", kind="variant", same_as="cb")]
    comparison = compared("cb", "again", arms=ladder, configs={})
    assert "one training under two names" in comparison.Settings_that_differ.notes[0]
    assert "same training" in " ".join(comparison.Results.notes)
    assert all(row[4:] == ("–", "–") for row in comparison.Results.rows)
    assert not any("images" in part.title for part in comparison.parts)


def test_choices_are_named(compared):
    """An arm chosen on validation images says whose run each seed's is."""
    comparison = compared(chosen={("cb", 0): "cb/a", ("cb", 1): "cb/b"})
    assert "cb was chosen on validation images: seed 0 cb/a, seed 1 cb/b" in comparison.Settings_that_differ.notes


def test_distances_are_no_probabilities(compared):
    """An arm whose scores are distances says so beside its NLL and ECE."""
    part = compared(configs={"cb": config(posthoc={"name": "ncm", "features": "raw"})}).Results
    assert any("The scores of cb are distances (ncm)" in note for note in part.notes)
    assert not any("distances" in note for note in compared().Results.notes)


def test_classes_come_by_the_size_of_their_difference(compared):
    """At most ten classes, the largest difference first, each the paired mean of recalls; Holm counts all classes."""
    classes = tuple(f"class {c}" for c in range(14))
    comparison = compared(classes=classes, images=25)
    part = comparison.Recall_by_class
    assert len(part.rows) == 10
    runs = comparison.of.runs[comparison.of.runs["status"] == "FINISHED"]
    recalls = {}
    for row in runs[runs["arm"].isin(["cb", "baseline"])].itertuples():
        table = comparison.of.predictions(row.run_id)
        recalls[row.arm, row.seed] = (table["label"] == table["predicted"]).groupby(table["label"]).mean()
    means = 100 * pd.concat([recalls["cb", seed] - recalls["baseline", seed] for seed in (0, 1, 2)], axis=1).mean(axis=1)
    largest = means.abs().sort_values(ascending=False, kind="stable").index[:10]
    assert [row[0] for row in part.rows] == [classes[c] for c in largest]
    assert [row[2].partition(" ")[0] for row in part.rows] == [f"{means[c]:+.2f}" for c in largest]
    assert "all 14 classes" in part.notes[0]


def test_images_gained_and_lost_are_counted(compared):
    """Per seed the images that only one of both got right, with the exact binomial p; the bootstrap has its own part."""
    comparison = compared()
    cells = rows(comparison.Test_images_gained_and_lost)
    by_run = comparison.of.runs.set_index(["arm", "seed"])["run_id"]
    for seed in (0, 1, 2):
        right = [(table := comparison.of.predictions(by_run[name, seed]))["label"] == table["predicted"] for name in ("cb", "baseline")]
        gained, lost = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
        p = stats.binomtest(gained, gained + lost).pvalue
        assert cells[str(seed)] == (str(gained), str(lost), f"{p:.3f}" if p >= 0.001 else "<0.001")
    boot = comparison.Test_images
    assert boot.title == "Test images: the other source of doubt"
    assert [row[0] for row in boot.rows] == ["accuracy", "balanced acc."]
    assert boot.rows[0][1].partition(" ")[0] == rows(comparison.Results)["accuracy"][2].partition(" ")[0]


@pytest.mark.parametrize(("wide", "words"), [(0.5, "takes more than 1,000 seeds"), (0.01, "takes about ")])
def test_the_seeds_needed_are_said(compared, wide, words):
    """How many seeds would find the margin by this spread, with a word for more than anyone has; none where there is no spread."""
    recorded = study(seeds=tuple(range(4)))
    is_ours = recorded.runs["arm"] == "cb"
    recorded.runs["test/accuracy"] = 0.5
    recorded.runs.loc[is_ours, "test/accuracy"] += wide * np.array([-0.5, 0.5, 0.4, -0.3])
    assert any(words in note for note in compared(recorded=recorded).Results.notes)
    recorded.runs["test/accuracy"] = 0.5
    notes = compared(recorded=recorded).Results.notes
    assert not any("80 % power" in note for note in notes)
    assert any(": inconclusive (no spread). It is one test" in note for note in notes)


def test_seeds_with_their_own_test_images_have_no_interval(compared):
    """Where the seeds saw other test images, gained and lost are told seed by seed and a sentence stands for the interval."""
    recorded = study()
    for run_id in recorded.runs[recorded.runs["seed"] == 1]["run_id"]:
        recorded.tables[run_id] = recorded.tables[run_id].assign(index=lambda table: table["index"] + 10**6)
    comparison = compared(recorded=recorded)
    assert [part.rows for part in comparison.parts if part.title == "Test images: the other source of doubt"] == [()]
    assert "not all tested on the same images" in comparison.Test_images.notes[0]
    assert list(rows(comparison.Test_images_gained_and_lost)) == ["0", "1", "2"]


def test_other_test_images_make_no_pairs(compared):
    """Arms that were tested on different images have a sentence in the place of counts."""
    recorded = study()
    for run_id in recorded.runs[recorded.runs["arm"] == "cb"]["run_id"]:
        recorded.tables[run_id] = recorded.tables[run_id].assign(index=lambda table: table["index"] + 10**6)
    comparison = compared(recorded=recorded)
    assert comparison.Test_images.rows == ()
    assert "not tested on the same images" in comparison.Test_images.notes[0]


def test_arms_with_other_test_images_have_no_difference(compared):
    """Their values alone; no interval, no p, and no table of classes."""
    recorded = study()
    recorded.plan["arms"] = [{**one, "test_set": one["name"]} for one in recorded.plan["arms"]]
    for run_id in recorded.runs[recorded.runs["arm"] == "cb"]["run_id"]:
        recorded.tables[run_id] = recorded.tables[run_id].assign(index=lambda table: table["index"] + 10**6)
    comparison = compared(recorded=recorded)
    assert {cells[2:] for cells in rows(comparison.Results).values()} == {("–", "–", "–")}
    assert comparison.Results.notes[-1] == "Verdict on accuracy: not comparable (other test items)."
    assert [part.title for part in comparison.parts] == [
        "Settings that differ", "Results, paired by seed", "Test images: the other source of doubt", "Runs",
    ]  # fmt: skip


def test_the_runs_are_named(compared):
    """Every seed's runs by their ids, also those that make no pair."""
    comparison = compared(broken={("cb", 1)})
    by_run = comparison.of.runs.set_index(["arm", "seed"])["run_id"]
    expected = {str(seed): (by_run["baseline", seed], by_run["cb", seed] if seed != 1 else "–") for seed in (0, 1, 2)}
    assert rows(comparison.Runs) == expected
    assert "seeds 1" in comparison.Runs.notes[0]


@pytest.mark.parametrize(
    ("first", "second", "metric", "problem"),
    [
        ("cbb", "baseline", "accuracy", "Did you mean 'cb'"),
        ("cb", "basline", "accuracy", "Did you mean 'baseline'"),
        ("cb", "baseline", "acuracy", "Did you mean 'accuracy'"),
        ("cb", "cb", "accuracy", "twice"),
    ],
)
def test_unknown_names_are_told(compared, first, second, metric, problem):
    """An unknown arm or metric is told with the nearest known name, and an arm is not compared with itself."""
    with pytest.raises(AblateError) as error:
        compared(first, second, metric)
    assert problem in str(error.value)
    assert isinstance(error.value, ConfigError) or problem == "twice"


def test_an_arm_without_runs_is_told(compared):
    """Where nothing is finished, the message names the arm and what to ask."""
    with pytest.raises(AblateError, match="cb has no finished run yet"):
        compared(broken={("cb", seed) for seed in (0, 1, 2)})


def test_a_plan_without_a_margin_takes_half_a_point(compared):
    """Plans that were recorded before the margin could be set are judged by 0.5 points."""
    recorded = study(seeds=(0, 1, 2, 3))
    recorded.plan.pop("margin")
    assert any("0.5 points" in note for note in compared(recorded=recorded).Results.notes)


def test_nan_metrics_have_dashes(compared):
    """A metric that no run has is left out, and one that a run lacks makes no pair of it."""
    recorded = study()
    recorded.runs["test/worst"] = math.nan
    assert "worst class" not in rows(compared(recorded=recorded).Results)
    assert json.dumps([part.rows for part in compared(recorded=recorded).parts])


def test_only_metrics_that_are_shown_have_units(compared):
    """No words about kappa and MCC, which older runs do not have."""
    units = compared().Results.notes[0]
    assert "NLL: nats" in units
    assert "kappa" not in units
    assert "MCC" not in units
