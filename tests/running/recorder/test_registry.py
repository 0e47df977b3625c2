"""Who began a run: known by the folder, not by the machine, which containers and nodes of a cluster share or change."""

import platform
import shutil

import pytest
from mlflow.exceptions import MlflowException

from ablation.running.recorder import registry
from ablation.running.recorder.registry import KEY, PLACE, Registry
from ablation.tracking.store import Store


@pytest.fixture
def shared(folder, monkeypatch):
    """A store that others may write into too, and the folder from which we do."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/other.db")
    shutil.copyfile("mlruns/mlflow.db", "other.db")
    return Store.open(), folder / "mlruns"


def begun(place):
    return {"tags": {PLACE: place} if place else {}}


def test_a_folder_keeps_its_id_whatever_its_machine_is_called(shared, monkeypatch):
    """A container that is started again has another name, and what it left RUNNING is still its own."""
    store, root = shared
    before = registry.place(root)
    monkeypatch.setattr(platform, "node", lambda: "another")
    assert registry.place(root) == before
    assert Registry(store, root).is_ours(begun(before))


def test_equal_names_of_machines_are_no_proof(shared, tmp_path):
    """Two nodes may be called alike and have the same path, as containers do: their folders differ all the same."""
    store, root = shared
    assert not Registry(store, tmp_path / "other").is_ours(begun(registry.place(root)))


def test_what_earlier_versions_began_here_is_ours(shared):
    """They named the machine and the folder; of others' runs, and of those without a tag, all is as before."""
    store, root = shared
    known = Registry(store, root)
    assert known.is_ours(begun(f"{platform.node()}:{root.resolve()}"))
    assert known.is_ours(begun(""))
    assert not known.is_ours(begun("another:/mlruns"))


def test_an_id_that_was_damaged_is_made_anew(shared):
    """An empty file, as a power failure leaves it, ends nothing."""
    _, root = shared
    registry.place(root)
    (root / "place.json").write_text("")
    assert registry.place(root) == registry.place(root)


def test_a_copy_is_another_place_and_a_folder_that_moved_is_not(shared):
    """What a copy begins on a second machine is its own, and neither closes the runs of the other."""
    store, root = shared
    before = registry.place(root)
    copy = root.with_name("copy")
    shutil.copytree(root, copy)
    assert (copy / "place.json").read_text() == (root / "place.json").read_text()
    assert not Registry(store, copy).is_ours(begun(before))
    assert registry.place(copy) == registry.place(copy) != before
    assert registry.place(root.rename(root.with_name("moved"))) == before


@pytest.mark.parametrize("is_answered", [True, False])
def test_a_request_that_was_sent_three_times_makes_one_run(is_answered, shared, monkeypatch):
    """MLflow's client sends it again where a server has made the run and its answer was lost, also if that holds for the last one."""
    store, root = shared
    known = Registry(store, root)
    known.experiment, create = store.experiment("tiny"), store.create

    def lose_answers(*request):
        *_, last = [create(*request) for _ in range(3)]
        if not is_answered:
            raise MlflowException("504")
        return last

    monkeypatch.setattr(store, "create", lose_answers)
    about = ("run", "a", "0", "k"), "a seed 0", {"ablation.kind": "run", "ablation.arm": "a", "ablation.seed": "0", KEY: "k"}, 5
    if not is_answered:
        with pytest.raises(MlflowException):
            known.run_id(*about)
    run_id = known.run_id(*about)
    assert [run["run_id"] for run in store.runs(known.experiment)] == [run_id]
