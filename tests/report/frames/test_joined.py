"""A study that was run in parts, in stores that know nothing of each other, is put together by its zips."""

import json
import zipfile

import pandas as pd
import pytest

from ablation import report
from ablation.report.frames import packed
from ablation.report.frames.joined import joined, joined_points
from tests.recorded import record, run
from tests.report.frames.test_packed import about, rewritten

ARMS = {"ladder": {"baseline": {}, "cb": {"sampler": "class_balanced"}}, "variants": {"views": {"tta": "flips"}}}
ASIDE = ["run_id", "start", "end", "command"]  # what two records of the same training may differ in


@pytest.fixture(scope="module")
def folders(tmp_path_factory, empty_database):
    """The same file in three folders: all of it, all with seed 0 and the baseline with seed 1, all with seed 1."""
    made = {name: tmp_path_factory.mktemp(name) for name in ("whole", "here", "there")}
    words = {"whole": (), "here": ("--seed", "0"), "there": ("--seed", "1")}
    for name, folder in made.items():
        record(folder, empty_database, words[name], seeds=[0, 1], base={"epochs": 1}, **ARMS)
    run(made["here"] / "tiny.yaml", "--seed", "1", "--arm", "baseline")
    return made


@pytest.fixture
def pack(folders, ablate, monkeypatch, tmp_path):
    """`ablate pack` in one of the folders, into a zip of that name; what came of it."""

    def call(name, *words):
        monkeypatch.chdir(folders[name])
        done = ablate("pack", tmp_path / f"{name}.zip", "--file", "tiny.yaml", *words)
        done.path = tmp_path / f"{name}.zip"
        return done

    return call


def test_the_parts_make_the_whole(pack, ablate):
    """Plan, runs, curves, predictions and tables are those of the store in which everything was run."""
    there = pack("there").path
    done = pack("here", "--with", there)
    assert done.status == 0, done.err
    assert "6 runs in" in done.err
    whole, parts = packed.read(pack("whole").path), packed.read(done.path)
    assert [arm["name"] for arm in parts.plan["arms"]] == ["baseline", "cb", "views"]
    assert parts.plan["seeds"] == [0, 1]
    assert [(run["arm"], run["seed"], run["key"]) for run in parts.plan["runs"]] == [
        (run["arm"], run["seed"], run["key"]) for seed in (0, 1) for run in whole.plan["runs"] if run["seed"] == seed
    ]
    assert parts.plan["counts"].keys() == {"0", "1"}
    rows = [study.runs.sort_values(["arm", "seed"]).reset_index(drop=True) for study in (whole, parts)]
    timed = [name for name in rows[0].columns if name.startswith("time/") or name in ASIDE]
    pd.testing.assert_frame_equal(rows[1].drop(columns=timed), rows[0].drop(columns=timed), check_like=True)
    for ours, theirs in zip(rows[1]["run_id"], rows[0]["run_id"], strict=True):
        pd.testing.assert_frame_equal(parts.predictions(ours), whole.predictions(theirs))
        losses = [
            study.curves([run_id]).query("metric == 'train/loss'")["value"].tolist() for study, run_id in ((parts, ours), (whole, theirs))
        ]
        assert losses[0] == losses[1] != []
    frames = [report.tidy_frames(study) for study in (parts, whole)]
    pd.testing.assert_frame_equal(frames[0].differences, frames[1].differences)
    assert ablate("report", done.path).status == 0


def test_two_zips_are_joined_without_a_store(pack, ablate, tmp_path, monkeypatch):
    """Where no store is left, the first zip stands for the study; either order gives the same runs."""
    paths = [pack(name).path for name in ("here", "there")]
    monkeypatch.chdir(tmp_path)
    found = []
    for i, (first, other) in enumerate((paths, paths[::-1])):
        done = ablate("pack", f"both-{i}.zip", "--file", first, "--with", other)
        assert done.status == 0, done.err
        found.append(packed.read(tmp_path / f"both-{i}.zip"))
        assert found[-1].written == packed.read(first).written
    tables = [study.runs.sort_values(["arm", "seed"])[["arm", "seed", "key", "test/accuracy"]].reset_index(drop=True) for study in found]
    pd.testing.assert_frame_equal(*tables)
    assert len(tables[0]) == 6


def test_a_finished_run_stands_before_one_that_is_not(pack):
    """Of a run that failed in one record and ended in another, the one that ended is taken, whichever comes first."""
    whole, there = pack("whole").path, pack("there").path
    runs = json.loads(zipfile.ZipFile(there).read("study.json"))["runs"]
    runs["values"]["status"][runs["values"]["arm"].index("cb")] = "FAILED"
    about(there, runs=runs)
    failed, other = packed.read(there), packed.read(whole)
    for records in ((failed, other), (other, failed)):
        study = joined(records[0], records[1:])
        assert (study.runs["status"] == "FINISHED").all()
        taken = study.runs.set_index(["arm", "seed"])["run_id"]
        assert taken["cb", 1] in set(other.runs["run_id"])
        assert taken["views", 1] in set(records[0].runs["run_id"])
        points = joined_points(study, [(record, record.all_points()) for record in records])
        assert set(points["run_id"]) == set(study.runs["run_id"])


def test_what_one_zip_lacks_of_single_images_none_keeps(pack):
    """With a zip without predictions the joined one has none, and says so."""
    there = pack("there", "--no-predictions").path
    done = pack("here", "--with", there)
    assert done.status == 0, done.err
    assert "without weights and predictions" in done.err
    both = packed.read(done.path)
    assert both.plan["predictions"] is False
    assert not [name for name in zipfile.ZipFile(done.path).namelist() if "predictions" in name]
    assert len(both.runs) == 6


def test_a_study_joined_with_itself_is_itself(pack):
    """A run that two records have is there once, with each of its points once."""
    alone = pack("here").path
    other = alone.rename(alone.with_name("other.zip"))
    both = packed.read(pack("here", "--with", other, "--with", other).path)
    pd.testing.assert_frame_equal(both.runs, packed.read(other).runs)
    pd.testing.assert_frame_equal(both.all_points(), packed.read(other).all_points())
    assert sorted(both.plan) == sorted(packed.read(other).plan)
    assert both.plan["stages"] == packed.read(other).plan["stages"]
    assert both.plan["data"] == packed.read(other).plan["data"]


def changed(path, change):
    """The zip with another plan."""
    plan = json.loads(zipfile.ZipFile(path).read("study.json"))["plan"]
    change(plan)
    about(path, plan=plan)


def other_key(plan):
    next(run for run in plan["runs"] if run["arm"] == "baseline")["key"] = "0" * 32


def other_file(plan):
    plan["written"] |= {"digest": "0" * 32, "margin": 9.0}


def no_file(plan):
    del plan["written"]


def nothing_in_common(plan):
    plan["runs"] = [run for run in plan["runs"] if run["arm"] != "baseline"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (other_key, "in which baseline seed 1 was run with other settings"),
        (other_file, "whose file says something else: margin 9.0 was 0.5"),
        (no_file, "cannot be compared"),
        (nothing_in_common, "ablate run FILE --arm cb --seed 1 here records one"),
    ],
)
def test_what_does_not_belong_together_is_refused(pack, change, problem):
    """Another file, another key of the same run, and nothing that both have are one sentence each; no zip is written."""
    there = pack("there").path
    changed(there, change)
    done = pack("here", "--with", there)
    assert (done.status, done.path.exists()) == (2, False)
    assert done.err.startswith("error: --with: found ")
    assert problem in done.err
    assert done.err.count("\n") == 1


def test_another_study_is_refused(pack):
    """So is a zip of another study, and a file that is none."""
    there = pack("there").path
    about(there, study="other")
    assert "which is of the study other; expected one of tiny" in pack("here", "--with", there).err
    rewritten(there, {"study.json": None})
    assert "is no packed study" in pack("here", "--with", there).err
    assert "there is no file" in pack("here", "--with", there.with_name("nowhere.zip")).err
