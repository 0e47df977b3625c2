"""executors.yaml: beside the study or in the user's folder, checked like a study."""

import re
from pathlib import Path

import pytest
import yaml

from ablation.errors import ConfigError
from ablation.running.executors.sites import BatchSite, SlurmSite, find_site

LAB = {"kind": "slurm", "parts": 16, "sbatch": {"partition": "gpu", "gres": "gpu:1", "time": "4:00:00"}, "setup": ["module load cuda"]}
BATCH = {"kind": "batch", "submit": "qsub {script}", "list": "qstat {job}", "cancel": "qdel {job}"}
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The user's folder of settings."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "ablate").mkdir(parents=True)
    return tmp_path / "config" / "ablate"


def site(folder, settings, name="lab", of=None):
    """The site of that name where executors.yaml has these, beside the study or in a folder."""
    ((of or folder) / "executors.yaml").write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings))
    return find_site(name, folder / "study.yaml")


def test_a_site_of_slurm(tmp_path):
    """As it is written; a time is text, and nothing is guessed."""
    text = 'lab: {kind: slurm, parts: 16, sbatch: {partition: gpu, gres: "gpu:1", time: 4:00:00}, setup: [module load cuda]}'
    assert site(tmp_path, text) == SlurmSite(**LAB)
    assert site(tmp_path, {"lab": {}}) == SlurmSite()


def test_slurm_needs_no_file(tmp_path):
    """It can have settings too."""
    assert find_site("slurm", tmp_path / "study.yaml") == SlurmSite()
    assert site(tmp_path, {"slurm": {"parts": 2}}, "slurm").parts == 2
    assert site(tmp_path, {"lab": {}}, "slurm") == SlurmSite()


def test_the_file_beside_the_study_comes_before_the_users(tmp_path, home):
    """Each may have sites that the other lacks."""
    site(tmp_path, {"lab": {"parts": 2}, "mine": {"parts": 3}}, of=home)
    assert site(tmp_path, {"lab": {"parts": 5}}).parts == 5
    assert find_site("mine", tmp_path / "study.yaml").parts == 3


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"kind": "slurm", "partz": 3}, "executors.yaml: lab.partz: unknown field 'partz'; expected one of .*Did you mean 'parts'?"),
        ({"kind": "slrm"}, "executors.yaml: lab.kind: unknown kind of executor 'slrm'; expected .*Did you mean 'slurm'?"),
        ({"kind": ["slurm"]}, "executors.yaml: lab.kind: unknown kind of executor"),
        ({"parts": 0}, "executors.yaml: lab.parts: found 0; expected greater than or equal to 1"),
        ({"parts": "4"}, "executors.yaml: lab.parts: found '4'; expected a whole number"),
        ({"capability": "9"}, "executors.yaml: lab.capability: found '9'; expected "),
        ({"sbatch": {"array": "1-3"}}, "executors.yaml: lab.sbatch: found .*; expected no array, which ablate gives itself"),
        ("gpu", "executors.yaml: lab: found 'gpu'; expected a mapping"),
        ({**BATCH, "submit": "qsub {scritp}"}, "executors.yaml: lab.submit: found .*; expected a command, in which only {script}, {parts}"),
        ({**BATCH, "list": ""}, "executors.yaml: lab.list: found ''; expected a command"),
        ({**BATCH, "cancel": "qdel {job"}, "executors.yaml: lab.cancel: found 'qdel {job'; expected "),
        ({"kind": "batch", "submit": "qsub {script}"}, "executors.yaml: lab.list: is missing; expected a value"),
    ],
)
def test_a_mistake_is_a_sentence(tmp_path, settings, expected):
    """With the place, what was found, what was expected, and the nearest name."""
    with pytest.raises(ConfigError) as raised:
        site(tmp_path, {"lab": settings})
    assert re.match(expected.replace("{", r"\{").replace("}", r"\}").replace("?", r"\?"), str(raised.value)), str(raised.value)


@pytest.mark.parametrize("text", ["- kind: slurm", ""])
def test_a_file_without_sites_is_told(tmp_path, text):
    """It is no study's file, and so nothing of a study is asked for."""
    (tmp_path / "executors.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"expected a mapping with names of sites, such as lab: \{kind: slurm\}"):
        find_site("slurm", tmp_path / "study.yaml")


def test_a_mistake_in_a_site_that_is_not_asked_for_is_told_too(tmp_path):
    """It would be met later, on a day when it is less welcome."""
    with pytest.raises(ConfigError, match=r"executors\.yaml: other\.parts"):
        site(tmp_path, {"lab": {}, "other": {"parts": "many"}})


def test_an_unknown_site_is_told_with_the_nearest(tmp_path):
    """And where sites are named."""
    with pytest.raises(
        ConfigError, match=r"--executor: unknown executor 'labb'; expected one of lab, local, ray, slurm\. Did you mean 'lab'\?"
    ):
        site(tmp_path, {"lab": {}}, "labb")
    with pytest.raises(ConfigError, match=r"Sites are named in executors\.yaml, beside the study or in .*config/ablate\."):
        find_site("lab", tmp_path / "nowhere" / "study.yaml")


def test_no_site_is_called_as_an_executor(tmp_path):
    """It could never be asked for."""
    with pytest.raises(ConfigError, match=r"executors\.yaml: local: found a site of the name of an executor"):
        site(tmp_path, {"local": {}}, "lab")


def test_the_sites_in_the_documents_are_right(tmp_path):
    """Those of PBS and LSF too, which have not been tried on the real ones."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8"), re.DOTALL)
    sites = [block for block in blocks if re.search(r"kind: (slurm|batch)", block)]
    found = {}
    for block in sites:
        (tmp_path / "executors.yaml").write_text(block)
        found |= {name: find_site(name, tmp_path / "study.yaml") for name in yaml.safe_load(block)}
    assert found["lab"] == SlurmSite(**LAB)
    assert {name for name, one in found.items() if isinstance(one, BatchSite)} == {"pbs", "lsf"}
