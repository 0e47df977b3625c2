"""A study that was run in parts, in stores that know nothing of each other, is put together by its zips."""

import io
import json
import shutil
import zipfile

import pandas as pd
import pytest

from ablation import report
from ablation.report.frames import packed
from ablation.report.frames.joined import _joined_runs, _without_mixed_choices, joined
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


def test_zips_of_one_name_are_told_apart(pack, tmp_path):
    """How many runs come from which, by their paths."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    one = pack("there").path.rename(tmp_path / "a" / "study.zip")
    two = pack("whole").path.rename(tmp_path / "b" / "study.zip")
    joining = joined(packed.read(pack("here").path), [packed.read(one), packed.read(two)])
    notes = [note for note in joining.plan["notes"] if "packed elsewhere" in note]
    assert notes == [f"2 runs of 6 were packed elsewhere, in {one.as_posix()}"]


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


def with_status(path, arm, status):
    """The zip with another status of the arm's runs."""
    runs = json.loads(zipfile.ZipFile(path).read("study.json"))["runs"]
    values = runs["values"]
    values["status"] = [status if name == arm else known for name, known in zip(values["arm"], values["status"], strict=True)]
    about(path, runs=runs)


def test_a_finished_run_stands_before_one_that_is_not(pack):
    """Of a run that failed in one record and ended in another, the one that ended is taken, whichever comes first."""
    whole, there = pack("whole").path, pack("there").path
    with_status(there, "cb", "FAILED")
    failed, other = packed.read(there), packed.read(whole)
    for records in ((failed, other), (other, failed)):
        study = joined(records[0], records[1:])
        assert (study.runs["status"] == "FINISHED").all()
        taken = study.runs.set_index(["arm", "seed"])["run_id"]
        assert taken["cb", 1] in set(other.runs["run_id"])
        assert taken["views", 1] in set(records[0].runs["run_id"])
        points = study.points([(record, record.all_points()) for record in records])
        assert set(points["run_id"]) == set(study.runs["run_id"])


@pytest.mark.parametrize("names", [("early", "late"), ("late", "early")])
def test_a_run_that_went_on_has_the_files_of_its_end(pack, ablate, names):
    """A run packed under way and again when it was finished, under the same id, is that of the later zip with its files."""
    late = pack("there").path.rename(pack("there").path.with_name("late.zip"))
    early = late.with_name("early.zip")
    shutil.copyfile(late, early)
    with_status(early, "cb", "KILLED")
    with zipfile.ZipFile(early) as archive:
        run = next(name for name in archive.namelist() if name.endswith("config.yaml") and b"arm: cb" in archive.read(name))
        rewritten(early, {name: None for name in archive.namelist() if name.startswith(run.rpartition("/")[0])})
    done = ablate(
        "pack", late.with_name("both.zip"), "--file", late.with_name(f"{names[0]}.zip"), "--with", late.with_name(f"{names[1]}.zip")
    )
    assert done.status == 0, done.err
    both = packed.read(late.with_name("both.zip"))
    assert (both.runs["status"] == "FINISHED").all()
    assert len(both.runs) == 3
    pd.testing.assert_frame_equal(both.predictions(run.split("/")[1]), packed.read(late).predictions(run.split("/")[1]))


def test_zips_come_in_any_order(pack, ablate, tmp_path):
    """A zip that has a run in common with another zip alone is joined after that one."""
    here, whole, there = (pack(name).path for name in ("here", "whole", "there"))
    plan = json.loads(zipfile.ZipFile(here).read("study.json"))["plan"]
    about(here, plan=plan | {"runs": [run for run in plan["runs"] if run["seed"] == 0]})
    for words in (("--with", there, "--with", whole), ("--with", whole, "--with", there)):
        done = ablate("pack", tmp_path / "all.zip", "--file", here, *words)
        assert done.status == 0, done.err
        assert len(packed.read(tmp_path / "all.zip").runs) == 6


def test_the_report_says_what_was_packed_elsewhere(pack, ablate):
    """How many runs a zip brought stands among the report's notes; none does of a zip that brought nothing."""
    there = pack("there").path
    done = pack("here", "--with", there)
    assert "2 runs of 6 were packed elsewhere, in there.zip" in ablate("report", done.path).out
    again = packed.read(pack("here", "--with", done.path.rename(done.path.with_name("joined.zip"))).path)
    assert [note for note in again.plan["notes"] if "elsewhere" in note] == ["2 runs of 6 were packed elsewhere, in joined.zip"]
    nothing = packed.read(pack("whole", "--with", there).path)
    assert not [note for note in nothing.plan["notes"] if "elsewhere" in note]


def test_the_first_file_says_what_the_study_is(pack):
    """Arms that were added since are kept, those that it no longer has are superseded, and its seeds and labels are those of the whole."""
    here, there = (packed.read(pack(name).path) for name in ("here", "there"))
    here.plan["written"]["text"] = "0" * 32
    del here.plan["written"]["arms"]["views"]
    here.plan["arms"] = [arm for arm in here.plan["arms"] if arm["name"] != "views"]
    here.plan["runs"] = [run for run in here.plan["runs"] if run["arm"] != "views"]
    here.plan["written"]["arms"]["later"] = here.plan["written"]["arms"]["cb"]
    here.plan["written"]["arms"]["cb"] = here.plan["written"]["arms"]["cb"] | {"label": "balanced"}
    here.plan["written"]["seeds"] = [1, 0, 7]
    study = joined(here, [there])
    assert [arm["name"] for arm in study.plan["arms"]] == ["baseline", "cb"]
    assert study.plan["seeds"] == [1, 0]
    assert {(run["arm"], run["seed"]) for run in study.plan["runs"]} == {(arm, seed) for arm in ("baseline", "cb") for seed in (0, 1)}
    assert set(study.runs["arm"]) == {"baseline", "cb"}
    assert study.superseded == ["views 0", "views 1"]


def test_data_at_another_place_are_the_same_data(pack):
    """An account of the data that arms of both share stands once, with the words of the first; one of other arms is added."""
    there = pack("there").path
    plan = json.loads(zipfile.ZipFile(there).read("study.json"))["plan"]
    first = plan["data"][0]
    other = first | {"summary": "another folder", "arms": ["views"]}
    about(there, plan=plan | {"data": [first | {"summary": "digits elsewhere", "arms": ["baseline", "cb"]}, other]})
    here = packed.read(pack("here").path)
    here.plan["data"][0]["arms"] = ["baseline"]
    accounts = joined(here, [packed.read(there)]).plan["data"]
    assert [(account["summary"], account["arms"]) for account in accounts] == [
        (first["summary"], ["baseline", "cb"]),
        ("another folder", ["views"]),
    ]


def test_what_one_record_no_longer_plans_counts_where_another_does(pack):
    """It is superseded only where none of the plans has it."""
    there = pack("there").path
    about(there, superseded=["cb 0", "gone 3"])
    assert packed.read(pack("here", "--with", there).path).superseded == ["gone 3"]


def test_studies_without_any_point_are_joined(pack):
    """Where no run has a curve, as runs of one's own code may, the zip can be read all the same."""
    paths = [pack(name).path for name in ("here", "there")]
    for path in paths:
        target = io.BytesIO()
        packed.read(path).all_points().iloc[:0].to_parquet(target, index=False)
        rewritten(path, {"curves.parquet": target.getvalue()})
    here, there = map(packed.read, paths)
    points = joined(here, [there]).points([(here, here.all_points()), (there, there.all_points())])
    assert list(points.columns) == packed.CURVE_COLUMNS
    assert points.empty


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


def other_content(plan):
    next(run for run in plan["runs"] if run["arm"] == "baseline").update(key="0" * 32, content="0" * 32)


def other_environment(plan):
    for planned in plan["runs"]:
        planned["key"] = planned["key"][::-1]


def untold_content(plan):
    other_environment(plan)
    for planned in plan["runs"]:
        del planned["content"]


def other_file(plan):
    plan["written"]["text"] = "0" * 32
    plan["written"]["arms"]["cb"]["settings"]["optimizer.lr"] = 9.0


def no_file(plan):
    del plan["written"]


def nothing_in_common(plan):
    plan["runs"] = [run for run in plan["runs"] if run["arm"] != "baseline"]


def other_sets(plan):
    plan["written"]["sets"] = [["optimizer.lr", 0.5], ["data.root", "elsewhere"]]


def other_metric(plan):
    plan["metric"] = "test/macro_f1"


def other_counts(plan):
    plan["test_counts"] = [7] * 10


DAMAGES = {
    "stage": lambda plan: plan["stages"][0].pop("arms"),
    "written": lambda plan: plan.update(written="nothing"),
    "first": lambda plan: plan["written"].pop("text"),
    "account": lambda plan: plan["data"][0].pop("arms"),
    "counts": lambda plan: plan.update(counts=3),
    "seed": lambda plan: plan["runs"][0].update(seed=[]),
}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (other_content, "in which baseline seed 1 was run with other settings, data or weights; expected the same as in this study"),
        (other_environment, "in which baseline seed 1 was made by other code, versions of packages or on another kind of device; --keep"),
        (untold_content, "in which baseline seed 1 was run with other settings, data or weights, or was made by other code, versions"),
        (other_file, "whose file says something else: optimizer.lr 9.0 was 0.003 in cb"),
        (no_file, "cannot be compared"),
        (nothing_in_common, "ablate run FILE --arm cb --seed 1 here records one"),
        (other_sets, "which was run with --set optimizer.lr=0.5; expected none, as this study"),
        (other_metric, "planned for another metric"),
        (other_counts, "planned for another number of test images"),
        *((change, "whose plan is damaged") for change in DAMAGES.values()),
    ],
)
def test_what_does_not_belong_together_is_refused(pack, change, problem):
    """Another file, other options, another key of the same run, and nothing that both have are one sentence each; no zip is written."""
    there = pack("there").path
    changed(there, change)
    done = pack("here", "--with", there)
    assert (done.status, done.path.exists()) == (2, False)
    assert done.err.startswith("error: --with: found ")
    assert problem in done.err
    assert done.err.count("\n") == 1


def test_runs_of_another_environment_are_joined_if_asked(pack, ablate):
    """With --keep-stale; the report says so, and on which kinds of device the runs were made. Joined once more, it still says so."""
    there = pack("there").path
    changed(there, other_environment)
    runs = json.loads(zipfile.ZipFile(there).read("study.json"))["runs"]
    runs["values"]["key"] = [key[::-1] for key in runs["values"]["key"]]
    runs["values"]["device"] = ["cpu of another kind"] * len(runs["values"]["device"])
    about(there, runs=runs)
    done = pack("here", "--with", there, "--keep-stale")
    assert done.status == 0, done.err
    first = packed.read(done.path)
    assert {(run["arm"], run["seed"]): run["key"] for run in first.plan["runs"]} == {
        (arm, seed): key for arm, seed, key in first.runs[["arm", "seed", "key"]].itertuples(index=False)
    }
    again = done.path.with_name("again.zip")
    assert ablate("pack", again, "--file", done.path, "--with", there, "--keep-stale").status == 0
    for path in (done.path, again):
        text = ablate("report", path).out
        assert "runs of there.zip were made by other code, versions of packages or on another kind of device (see Provenance)." in text
        assert "The runs were made on 2 kinds of device, which round differently: 4 runs on cpu" in text
        assert "and 2 runs on cpu of another kind." in text


def choosing(*rows):
    """A frame with these runs of a sweep with seed 0: arm, accuracy, and the arm that was chosen."""
    place = {"seed": 0, "status": "FINISHED"}
    return pd.DataFrame([{**place, "arm": arm, "test/accuracy": value, "chosen": chosen} for arm, value, chosen in rows])


def test_a_choice_is_joined_with_the_runs_between_which_it_was_made():
    """Or left out, and that is said: the best of other results is not the best of these."""
    whole = choosing(("a/1", 0.9, ""), ("a/2", 0.8, ""), ("a/best", 0.9, "a/1"))
    part = choosing(("a/1", 0.7, ""))
    for frames, left in (
        ([whole, part], []),
        ([part, whole], ["a/best seed 0 chose between other results than those here, and is left out"]),
    ):
        runs, notes = _without_mixed_choices(_joined_runs(frames), frames)
        assert notes == left
        assert ("a/best" in set(runs["arm"])) == (not left)
        assert runs.set_index("arm")["test/accuracy"]["a/1"] == frames[0]["test/accuracy"][0]


def test_contents_cannot_be_asked_away(pack):
    """Other settings, data or weights are refused with --keep-stale, too, which alone says nothing."""
    there = pack("there").path
    changed(there, other_content)
    assert "was run with other settings, data or weights" in pack("here", "--with", there, "--keep-stale").err
    assert "error: --keep-stale: found no --with" in pack("here", "--keep-stale").err


def test_another_study_is_refused(pack):
    """So is a zip of another study, and a file that is none."""
    there = pack("there").path
    about(there, study="other")
    assert "which is of the study other; expected one of tiny" in pack("here", "--with", there).err
    rewritten(there, {"study.json": None})
    assert "is no packed study" in pack("here", "--with", there).err
    assert "there is no file" in pack("here", "--with", there.with_name("nowhere.zip")).err
