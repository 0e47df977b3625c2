"""The first screen in a terminal, which a run ends with."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from scipy import stats

from ablation import report
from ablation.errors import ConfigError
from tests.report.studies import CONDITIONED, LADDER, arm, shifted, study

ARMS = [rung["name"] for rung in LADDER]
TAU = [
    arm(f"tau/{value}", "cb", "sweep", change={"posthoc.tau": [0.75, value]}, factors={"posthoc.tau": str(value)}) for value in (0.5, 1, 10)
]


def rows(text):
    """The tables' rows by arm, each a dict of the header's words; the arm's family is its first key."""
    found, header = {}, []
    for line in text.splitlines():
        cells = re.split(r" {2,}", line.strip())
        if len(cells) > 1 and not line.startswith(" "):
            header = [(match.start(), match[0]) for match in re.finditer(r"\S+(?: \S+)*", line)]
        elif header and line.startswith("  ") and line[2] != " ":
            ends = [start for start, _ in header[1:]] + [None]
            found[cells[0]] = {name: line[start:end].strip() for (start, name), end in zip(header, ends, strict=True)}
        else:
            header = []
    return found


def block(text, title):
    """The lines under a title, each as one string of words."""
    lines = text.split(f"\n{title}", 1)[1].split("\n\n")[0].splitlines()[1:]
    return [" ".join(line.split()) for line in lines]


def test_rows_hold_the_differences_with_their_intervals_and_the_verdict():
    """The mean differences in points, their 95 % t intervals over seeds, and what may be said of that to the parent."""
    recorded = study(CONDITIONED, seeds=range(5))
    values = 100 * recorded.runs.pivot(index="seed", columns="arm", values="test/accuracy")
    table = rows(report.brief(recorded))
    verdicts = report.tidy_frames(recorded).arms.set_index("arm")["verdict_vs_parent"]
    assert list(table["cb"]) == ["Ladder", "accuracy", "vs parent [95 %]", "vs baseline [95 %]", "verdict"]
    assert next(iter(table["cutmix"])) == "Variants"
    for name, parent in (("cb", "baseline"), ("mixup", "cb"), ("cutmix", "cb")):
        for other, header in ((parent, "vs parent [95 %]"), ("baseline", "vs baseline [95 %]")):
            gains = values[name] - values[other]
            low, high = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
            assert re.sub(r"([\[ ]) +", r"\1", table[name][header]) == f"{gains.mean():+.2f} [{low:+.2f}, {high:+.2f}]"
        assert table[name]["verdict"] == verdicts[name] != ""
        assert table[name]["accuracy"].removesuffix(" *") == f"{values[name].mean():.2f} ± {values[name].std():.2f}"
    assert (table["baseline"]["vs parent [95 %]"], table["baseline"]["verdict"]) == ("", "")
    best = values[["baseline", "cb", "mixup"]].mean().idxmax()
    assert [name for name in ("baseline", "cb", "mixup") if table[name]["accuracy"].endswith(" *")] == [best]
    assert "same training reweight = cb" in block(report.brief(recorded), "Labels")


def test_a_parent_that_leads_another_family_has_no_star_in_its_own():
    """The baseline leads the variants and not the ladder; without a star nothing is said of stars."""
    recorded = shifted({"up": 0.05, "low": -0.05, "lower": -0.1})
    for one in recorded.plan["arms"][2:]:
        one["kind"] = "variant"
    text = report.brief(recorded)
    assert [name for name, row in rows(text).items() if row["accuracy"].endswith(" *")] == ["up"]
    assert "* highest mean of its family" in " ".join(text.split())
    text = report.brief(recorded, arms=["baseline", "low"])
    assert "*" not in text
    assert "highest mean of its family" not in " ".join(text.split())


def test_arms_near_chance_are_told_in_the_terminal():
    """Among the labels, by the accuracy, even if another metric is shown."""
    recorded = shifted({"bad": -0.4, "up": 0.1})
    for metric in ("", "nll"):
        text = report.brief(recorded, metric=metric)
        assert "near chance bad" in block(text, "Labels")
        assert "1 of 3 arms is near chance" in text


def test_the_strip_the_sentences_and_the_command_come_first():
    """The study, what was run, what differs from the file, the best arm, and the command that adds seeds."""
    recorded = study(seeds=range(2))
    text = report.brief(recorded, notes=["demo.yaml was edited since"])
    first, strip, note = text.splitlines()[:3]
    assert first == "demo"
    assert strip.startswith("arms 7 · seeds 0-1 · runs 14 done · images 394 training, 160 test in 4 classes ·")
    assert "note: demo.yaml was edited since" in text
    assert text.index("note:") < text.index("has the highest mean accuracy") < text.index("Ladder")
    assert "\n  ablate run demo.yaml --seed 0 --seed 1 --seed 2 " in text
    assert note


def test_missing_runs_are_counted():
    """An arm with fewer runs than planned says so, and one without any has no numbers."""
    table = rows(report.brief(study(broken={("cb", 1)}, absent={("mixup", seed) for seed in (0, 1, 2)})))
    assert (table["cb"]["runs"], table["baseline"]["runs"], table["mixup"]["runs"]) == ("2/3", "3/3", "0/3")
    assert (table["mixup"]["accuracy"], table["mixup"]["vs parent [95 %]"], table["mixup"]["verdict"]) == ("–", "", "")


def test_differences_of_fewer_pairs_say_so():
    """As in Markdown: behind the difference, where seeds of the arm or of its partner are missing; nothing where all are there."""
    text = report.brief(study(seeds=range(4), absent={("cb", 1), ("reweight", 1), ("mixup", 2), ("mixup", 3)}))
    found = rows(text)
    marks = {name: [re.findall(r"\(.*\)$", row[header]) for header in ("vs parent [95 %]", "vs baseline")] for name, row in found.items()}
    assert marks["cb"] == [["(3 of 4)"], ["(3 of 4)"]]
    assert marks["mixup"] == [["(1 of 4)"], ["(2 of 4)"]]
    assert marks["cutmix"] == [["(3 of 4)"], []]
    assert marks["reweight"] == marks["cb"]  # one training under two names
    assert " of 4)" not in report.brief(study(seeds=range(4)))


def test_only_the_asked_arms_corrected_for_all():
    """The other arms are not shown; they still count in the correction."""
    recorded = study(seeds=range(4))
    assert list(rows(report.brief(recorded, ["mixup"]))) == ["mixup"]
    assert rows(report.brief(recorded, ["mixup"]))["mixup"]["verdict"] == rows(report.brief(recorded))["mixup"]["verdict"]


def test_predictions_are_never_read_and_empty_columns_left_out():
    """Without parents there is no column for them; without a finished run there is no table."""
    recorded = study([arm("baseline", None), arm("other", None)])
    recorded.tables.clear()
    assert list(rows(report.brief(recorded))["other"]) == ["Ladder", "accuracy", "vs baseline [95 %]"]
    alone = rows(report.brief(study([arm("baseline", None)])))
    assert list(alone["baseline"]) == ["Ladder", "accuracy"]
    nothing = report.brief(
        study([arm("baseline", None), arm("cb", "baseline")], absent={(a, s) for a in ("baseline", "cb") for s in (0, 1, 2)})
    )
    assert "No best arm yet: 0 of 6 runs are done." in nothing
    assert "Ladder" not in nothing


def test_a_sweep_is_a_line():
    """Each value with its mean, the parent's own among them and the best with a star; what is claimed, and how many are open."""
    best = arm("tau/best", "cb", "sweep", labels={"chosen": "by validation"})
    recorded = study([arm("baseline", None), arm("cb", "baseline"), *TAU, best], seeds=range(8))
    base = recorded.runs.loc[recorded.runs["arm"] == "cb", "test/accuracy"].to_numpy()
    for name, shift in (("tau/0.5", -0.1012), ("tau/1", 0.1012), ("tau/10", 0.0), ("tau/best", 0.0)):
        wobble = np.linspace(-0.001, 0.001, 8) * (1 if shift else 20)
        recorded.runs.loc[recorded.runs["arm"] == name, "test/accuracy"] = base + shift + wobble
    mean = {name: f"{100 * value:.2f}" for name, value in recorded.runs.groupby("arm")["test/accuracy"].mean().items()}
    (head, *rest) = block(report.brief(recorded), "Sweeps")
    assert " ".join([head, *rest]) == (
        f"tau of cb 0.5: {mean['tau/0.5']}, 0.75 (cb): {mean['cb']}, 1: {mean['tau/1']} *, 10: {mean['tau/10']}, "
        f"best (chosen): {mean['tau/best']}; worse: 0.5; better: 1; 2 inconclusive"
    )


def test_sweeps_of_words_begin_with_their_parent():
    """Its value has no place among words."""
    words = [arm(f"views/{word}", "cb", "sweep", change={"tta": ["none", word]}, factors={"tta": word}) for word in ("flips", "scale")]
    (line,) = block(report.brief(study([*LADDER[:2], *words])), "Sweeps")
    assert re.match(r"views of cb none \(cb\): [\d.]+( \*)?, flips: [\d.]+( \*)?, scale: [\d.]+( \*)?; all inconclusive$", line)


def test_a_condition_is_a_line():
    """What it changes, what that does to its first arm, and the verdicts within it; arms chosen on the test items are marked."""
    arms = [rung | {"labels": {"selected on test": "its epoch"}} if rung["kind"] == "condition" else rung for rung in CONDITIONED]
    recorded = study(arms, seeds=[0, 1, 2])
    mean = {name: f"{100 * value:.2f}" for name, value in recorded.runs.groupby("arm")["test/accuracy"].mean().items()}
    (line,) = block(report.brief(recorded), "Conditions")
    first = f"baseline {mean['baseline']} → {mean['no-lag/baseline']} (T)"
    assert line == f"no-lag (2) average none; selected on test; {first}; 1 inconclusive"


def test_a_condition_of_one_arm():
    """It names no best arm of its own where the arm outside it that it is compared with is better."""
    recorded = study([rung for rung in CONDITIONED if rung["name"] != "no-lag/cb"])
    mean = recorded.runs.groupby("arm")["test/accuracy"].mean()
    assert mean["no-lag/baseline"] < mean["baseline"]
    (line,) = block(report.brief(recorded), "Conditions")
    assert line.startswith("no-lag (1) average none; baseline ")
    assert " best " not in line


def test_what_would_be_folded_alone_is_a_table():
    """Where only arms of sweeps or conditions are asked for, each has its row."""
    arms = [*CONDITIONED, *TAU]
    assert list(rows(report.brief(study(arms), ["no-lag/*"]))) == ["no-lag/baseline", "no-lag/cb"]
    assert list(rows(report.brief(study(arms), ["tau/*"]))) == ["tau/0.5", "tau/1", "tau/10"]


def test_one_seed_has_no_interval():
    """Nor a spread or a star of honour that a column would need."""
    table = rows(report.brief(study(seeds=[0])))
    assert list(table["cb"]) == ["Ladder", "accuracy", "vs parent", "vs baseline", "verdict"]
    assert re.fullmatch(r"\d\d\.\d\d( \*)?", table["cb"]["accuracy"])
    assert re.fullmatch(r"[+-]\d+\.\d\d", table["cb"]["vs parent"])


def test_another_metric_has_its_unit_and_its_direction():
    """The lowest is the best, and it is said."""
    text = report.brief(shifted({"up": 0.4, "down": -0.3}, metric="test/nll"), metric="nll")
    assert rows(text)["down"]["NLL"] == "0.300 ± 0.001 *"
    words = " ".join(text.split())
    assert "metric NLL: lower is better" in words
    assert "NLL in nats, mean ± sd; differences in nats; verdicts against the parent; * lowest mean of its family" in words


def test_an_order_is_one_table():
    """All arms by name or by a metric, which gets a column."""
    recorded = study([*CONDITIONED, *TAU])
    assert list(rows(report.brief(recorded, sort="arm"))) == sorted([*ARMS, *(point["name"] for point in TAU)])
    few = recorded.runs.groupby("arm")["test/few"].mean().sort_values(ascending=False, kind="stable")
    table = rows(report.brief(recorded, sort="few"))
    assert list(table["cb"])[:3] == ["By few", "accuracy", "few"]
    shown = [float(row["few"].split()[0]) for row in table.values()]
    assert shown == [round(100 * value, 2) for value in few]
    with pytest.raises(ConfigError, match="--sort: unknown metric 'fewer'"):
        report.brief(recorded, sort="fewer")


@pytest.mark.parametrize("more", [{"only_changed": True}, {"references": "x.csv"}])
def test_columns_that_a_terminal_has_no_room_for_are_refused(tmp_path, more):
    """With the option's name, printed or written."""
    for output in (None, tmp_path / "out"):
        with pytest.raises(ConfigError, match=r"--(only-changed|reference): found it beside the format text"):
            report.write(study(), "text", output, **more)
    assert not (tmp_path / "out").exists()


def test_the_written_text_is_the_printed_one(tmp_path):
    """From the frames of a report as from the record."""
    options = {"metric": "few", "arms": ["c*", "baseline"], "notes": ["run with --set epochs=1"]}
    text = report.write(study(), "text", tmp_path, **options)
    assert text == report.write(study(), "text", **options) == report.brief(study(), **options) + "\n"
    assert (tmp_path / "report.txt").read_text() == text


def matrix():
    """Seventy arms: a ladder, variants, five sweeps, drop-one, and three conditions."""
    ladder = ["baseline", "cb", "mixup", "ls", "tta", "decoupling"]
    plain = [arm(name, parent) for name, parent in zip(ladder, [None, *ladder], strict=False)]
    plain += [arm(name, "cb", "variant") for name in ("cutmix", "cutmix-tail", "reweight")]
    for name, of, number in (
        ("decoupled", "baseline", 5),
        ("epsilon", "ls", 3),
        ("alpha", "mixup", 2),
        ("lambda", "mixup", 2),
        ("views", "ls", 4),
    ):
        plain += [arm(f"{name}/{point / 10}", of, "sweep", factors={name: str(point / 10)}) for point in range(1, number + 1)]
    plain += [arm(f"tta/without-{name}", "tta", "drop_one", factors={"without": name}) for name in ("cb", "mixup", "ls", "tta")]
    arms = list(plain)
    for condition, members in (("no-lag", plain), ("warm", plain[:6]), ("as-published", plain[:6])):
        arms += [
            arm(
                f"{condition}/{one['name']}",
                f"{condition}/{one['parent']}" if one["parent"] else None,
                "condition",
                f"{condition}/baseline",
            )
            for one in members
        ]
    return study(arms, seeds=[0, 1], images=8)


def test_seventy_arms_are_a_screen():
    """Sixty lines of a hundred columns."""
    recorded = matrix()
    assert len(recorded.plan["arms"]) == 70
    lines = report.brief(recorded).splitlines()
    assert len(lines) <= 60
    assert max(map(cell_len, lines)) <= 100


LETTERS = st.sampled_from(["a", "b", "ü", "深", "한", "e\u0301", "-", "0"])
NAMES = st.lists(st.lists(LETTERS, min_size=1, max_size=80).map("".join), min_size=6, max_size=6, unique=True)


@settings(max_examples=25, deadline=None)
@given(NAMES, st.integers(60, 100), st.sampled_from(["", "few"]), st.sampled_from([(0,), (0, 1, 2)]))
def test_no_line_is_wider_than_the_screen(names, width, sort, seeds):
    """Whatever the arms are called; and no two of them are shown alike."""
    base, rung, variant, sweep, point, condition = names
    arms = [
        arm(base, None, baseline=base),
        arm(rung, base, baseline=base, labels={"bundle": "x", "selected on test": "y"}),
        arm(variant, rung, "variant", baseline=base, same_as=rung),
        *(arm(f"{sweep}/{value}", rung, "sweep", baseline=base, factors={"x": value}) for value in (point, "other")),
        *(arm(f"{condition}/{name}", None, "condition", f"{condition}/{base}") for name in (base, rung)),
    ]
    recorded = study(arms, seeds=seeds, images=4)
    recorded.plan["study"] = "s" * 150
    text = report.brief(recorded, sort=sort, width=width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert len(rows(text)) == (len(arms) if sort else 3)


def test_claims_have_colours_and_plain_text_none():
    """Green and red are styles, which a pipe or a file does not get."""
    from ablation.report.documents.terminal import of_record
    from ablation.report.documents.terminal_text import Screen
    from ablation.report.sections import Shown

    text = of_record(shifted({"up": 0.05, "down": -0.04}), Shown(), Screen())
    styles = {str(span.style): text.plain[span.start : span.end] for span in text.spans}
    assert styles["green"] == "better"
    assert styles["red"] == "worse"
    assert "\x1b" not in text.plain


def test_a_condition_without_its_first_arm_says_nothing_of_its_effect():
    """What is compared within it is no change by the condition."""
    line = next(line for line in report.brief(study(CONDITIONED), ["baseline", "cb", "no-lag/cb"]).splitlines() if "no-lag (1)" in line)
    assert "→" not in line
    assert "sampler" not in line
    assert re.search(r"inconclusive|better|worse|difference", line)
