"""The split of a plan: pinned by whoever comes first, found by all who come later."""

import json
import shutil
import threading

import pytest

from ablation.errors import AblateError
from ablation.running.parts.pinning import covering, pinned
from ablation.running.parts.split import SPLIT, delete, read, splits
from tests import parts


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "mlruns" / "parts"


def test_a_part_that_begins_later_takes_the_share_that_was_meant_for_it(folder):
    """When other runs are computed, and when some are recorded, the split is that of the first who came."""
    first = pinned(folder, parts.three_runs(), 2, "cpu")
    assert first.shares == (("r1", "r2"), ("r3",))
    for state in ("evaluated", "done"):
        later = parts.three_runs()
        later.runs[0].state, later.runs[0].needed = state, False
        later.waiting = later.runs[1:]
        assert pinned(folder, later, 2, "cpu") == first
    assert len(splits(folder, "tiny")) == 1


def test_made_anew_it_is_another_work(folder):
    """Of the same runs, which are to be computed again: folders of stages that know the attempts of before let its first one in."""
    first = pinned(folder, parts.three_runs(), 2, "cpu")
    assert read(first.folder).name == first.name
    shutil.rmtree(first.folder)
    second = pinned(folder, parts.three_runs(), 2, "cpu")
    assert second.folder == first.folder
    assert second.name != first.name


def test_what_is_deleted_is_gone_for_all_at_once(folder, monkeypatch):
    """Its study's folder too, unless another split is in it; whoever lists them meanwhile passes over it."""
    one = parts.three_runs()
    first, second = pinned(folder, one, 2, "cpu"), pinned(folder, one, 3, "cpu")
    delete(first.folder)
    assert splits(folder) == [second]

    def vanishes(path):
        delete(path)
        return read(path)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr("ablation.running.parts.split.read", vanishes)
        assert splits(folder) == []
    assert list(folder.iterdir()) == []
    assert pinned(folder, one, 2, "cpu").folder == first.folder


def test_two_that_come_at_once_take_the_same(folder):
    """Even if one of them already sees a result of the other."""
    plans = [parts.three_runs() for _ in range(6)]
    for plan in plans[::2]:
        plan.runs[0].state, plan.runs[0].needed = "evaluated", False
        plan.waiting = plan.runs[1:]
    found = []
    threads = [threading.Thread(target=lambda plan=plan: found.append(pinned(folder, plan, 2, "cpu"))) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len({split.shares for split in found}) == 1
    assert not list(folder.glob(".*"))


def test_other_work_has_another_split(folder):
    """Arms that the split lacks, another number of parts, another device, another study."""
    one = parts.three_runs()
    few = parts.plan(list(one.nodes.values()), one.runs[:2])
    first = pinned(folder, few, 2, "cpu")
    assert pinned(folder, one, 2, "cpu") != first
    assert pinned(folder, few, 3, "cpu") != first
    assert covering(folder, few, "cuda NVIDIA H100") == []
    assert len(splits(folder)) == 3
    assert [split.study for split in splits(folder, "tiny")] == ["tiny"] * 3
    assert splits(folder, "t*") == []


def test_the_newest_split_that_has_all_comes_first(folder):
    """Fewer arms are of the split of all."""
    one = parts.three_runs()
    whole = pinned(folder, one, 2, "cpu")
    few = parts.plan(list(one.nodes.values()), one.runs[:1])
    assert covering(folder, few, "cpu") == [whole]
    assert pinned(folder, few, 2, "cpu") == whole


def test_jobs_and_a_stop_are_known_to_all(folder):
    """What one process notes, another reads; to go on, the stop is taken back."""
    split = pinned(folder, parts.three_runs(), 2, "cpu")
    assert split.jobs == {}
    split.note_job({"kind": "slurm"}, "12", [1, 2])
    split.note_job({"kind": "slurm"}, "13", [2])
    other = read(split.folder)
    assert other.jobs["kind"] == "slurm"
    assert [(job["id"], job["parts"]) for job in other.jobs["submitted"]] == [("12", [1, 2]), ("13", [2])]
    split.ask_to_stop()
    assert other.is_stopped
    other.go_on()
    assert not split.is_stopped


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"study": "tiny"})])
def test_a_damaged_split_is_told_in_a_sentence(folder, text):
    """As after a power failure."""
    split = pinned(folder, parts.three_runs(), 2, "cpu")
    (split.folder / SPLIT).write_text(text)
    with pytest.raises(AblateError, match=r"found no split of a study in .*expected its split\.json"):
        read(split.folder)
