"""The quick matrix's ladder by processes of this machine, by three parts, by Slurm and by Ray: the same bytes and the same record."""

import shutil
from importlib.util import find_spec

import pytest

from benchmarks.engines import PATIENCE, Campaign, collected, problems
from tests.engines.slurm import needs_slurm, slow, started

EPOCHS = 3
pytestmark = slow


@pytest.fixture(scope="module")
def study(tmp_path_factory, empty_database):
    """The study in a new folder, to be carried out by a Slurm if one is given, else by this machine."""

    def made(name, slurm=None):
        campaign = Campaign(tmp_path_factory.mktemp(name) / "study", 1, EPOCHS, slurm)
        (campaign.folder / "mlruns").mkdir()
        shutil.copyfile(empty_database, campaign.folder / "mlruns" / "mlflow.db")
        campaign.environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray takes 127.0.0.1 for what it is
        return campaign

    return made


@pytest.fixture(scope="module")
def local(study):
    """The folder in which this machine carried it out."""
    campaign = study("local")
    collected(campaign)
    return campaign.folder


def test_by_three_parts(study, local):
    """Each by a command of its own, all at once; the next one records them, and trains nothing."""
    campaign = study("parts")
    parts = [campaign.start("--part", f"{part}/3") for part in (1, 2, 3)]
    assert [part.wait(PATIENCE) for part in parts] == [0, 0, 0], campaign.printed()
    (campaign.folder / "printed").unlink()
    collected(campaign)
    assert ": epoch " not in campaign.printed()
    assert problems(local, campaign.folder) == []


@pytest.mark.slurm
@needs_slurm
def test_by_slurm(study, local, tmp_path_factory):
    """As parts in one job array."""
    with started(tmp_path_factory.mktemp("slurm")) as slurm:
        campaign = study("jobs", slurm)
        collected(campaign)
    assert problems(local, campaign.folder) == []


@pytest.mark.ray
@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")
def test_by_ray(study, local):
    """By actors of a cluster that is begun for the command."""
    campaign = study("actors")
    collected(campaign, "--executor", "ray")
    assert problems(local, campaign.folder) == []
