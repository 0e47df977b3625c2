"""What the tests with a Slurm share."""

import pytest

from tests.engines.slurm import started


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A Slurm of its own, as environment."""
    with started(tmp_path_factory.mktemp("slurm")) as folder:
        yield {"SLURM_CONF": str(folder / "slurm.conf")}
