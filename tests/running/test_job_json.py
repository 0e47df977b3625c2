"""Jobs as JSON: what is read is equal to what was written, whatever technique is in it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from ablation.commands.options import Options
from ablation.commands.session import Session
from ablation.errors import ConfigError
from ablation.running.job_json import job_from_json, job_to_json
from ablation.study.task import CheckpointInterval
from ablation.techniques import technique
from ablation.techniques.technique import FAMILIES, Technique, family
from tests.own import imports_undone
from tests.tiny import Planned, write

ROOT = Path(__file__).parents[2]
FILES = [(ROOT / "experiments.yaml", "quick"), *((path, None) for path in sorted((ROOT / "studies" / "own").glob("*.yaml")))]


def jobs_of(file, profile, root):
    """The jobs of a study that nothing of was run, without its lengthy preparation."""
    session = Session(Options(file, profile, device="cpu", allow_code=True), Console(quiet=True), root)
    return [node.job for node in session.plan([], probe=False).nodes.values()]


@pytest.mark.parametrize(("file", "profile"), FILES, ids=lambda value: getattr(value, "stem", ""))
@pytest.mark.usefixtures("own")
def test_every_job_of_a_study_comes_back_equal(file, profile, tmp_path, monkeypatch):
    """Also in the types of what it holds, so that nothing later can tell them apart."""
    monkeypatch.setattr(technique._PERMISSION, "is_given", False)
    with imports_undone():
        jobs = jobs_of(file, profile, tmp_path / "mlruns")
        assert len(jobs) > 20
        for job in jobs:
            read = job_from_json(job_to_json(job))
            assert read == job
            assert repr(read) == repr(job)


def spellings(name):
    """Techniques of a family: each with its defaults, and with one field set to another value at a time, as far as it takes that."""
    for cls in family(name).built_in:
        fields = {field: info for field, info in cls.model_fields.items() if field != "name"}
        others = {bool: [True, False], int: [1, 3], float: [0.1, 0.30000000000000004, 1e-7], str: ["inverse"]}
        tries = [{}] + [{field: value} for field, info in fields.items() for value in others.get(info.annotation, [])]
        for settings in tries:
            try:
                yield technique.make(name, {"name": technique.technique_name(cls), **settings})
            except ConfigError:
                continue


FIELDS = {"losses": "loss", "samplers": "sampler", "mixing": "mix", "classifiers": "classifier", "optimizers": "optimizer"}
FIELDS |= {"schedules": "schedule", "averages": "average", "tta": "tta", "posthoc": "posthoc", "smoothing": "smoothing"}


@pytest.mark.parametrize("name", [*FIELDS, "augmentations"])
def test_every_technique_comes_back_equal(name, tmp_path):
    """In the settings of a stage and of a test, with each of its fields set otherwise too."""
    assert set(FIELDS) | {"augmentations", "class_weights", "models", "longtail", "data"} == set(FAMILIES)
    (job,) = Planned(write(tmp_path), tmp_path / "mlruns").jobs()
    stage, request = job.work.stage, job.work.requests[0]
    found = list(spellings(name))
    assert len(found) >= len(family(name).techniques) - 1
    for one in found:
        value = (one,) if name == "augmentations" else one
        settings = stage.settings.model_copy(update={FIELDS.get(name, "augment"): value})
        work = replace(job.work, stage=replace(stage, settings=settings), requests=(replace(request, settings=settings),))
        read = job_from_json(job_to_json(replace(job, work=work)))
        assert repr(read.work) == repr(work)
        assert read.work == work
        assert type(getattr(read.work.stage.settings, FIELDS.get(name, "augment"))) is type(value)


def test_the_engine_s_own_fields_come_back(tmp_path):
    """The interval of checkpoints too, in epochs or in seconds."""
    (job,) = Planned(write(tmp_path), tmp_path / "mlruns").jobs()
    for interval in (CheckpointInterval(7), CheckpointInterval(seconds=0.1)):
        changed = replace(job, checkpoint_interval=interval, requests=("a", "b"), parent="p")
        assert job_from_json(job_to_json(changed)) == changed


OWN = """
from typing import Literal

from ablation.techniques.losses import CrossEntropy


class Mine(CrossEntropy):
    name: Literal["mine"] = "mine"
    scale: float = 1.0
"""


def test_a_class_of_one_s_own_is_imported_only_where_that_is_allowed(tmp_path, monkeypatch):
    """The text names it; without permission its module is not imported."""
    (tmp_path / "own_travelling.py").write_text(OWN)
    monkeypatch.setattr(technique._PERMISSION, "is_given", False)
    with imports_undone():
        technique.allow_code(tmp_path)
        (job,) = Planned(write(tmp_path, base={"loss": {"name": "own_travelling:Mine", "scale": 2.5}}), tmp_path / "mlruns").jobs()
        text = job_to_json(job)
        assert json.loads(text)["work"]["stage"]["settings"]["loss"]["name"] == "own_travelling:Mine"
        read = job_from_json(text)
        assert read == job
        assert isinstance(read.work.stage.settings.loss, Technique)
        monkeypatch.setattr(technique._PERMISSION, "is_given", False)
        with pytest.raises(ConfigError, match="allow-code"):
            job_from_json(text)


def test_the_bits_of_a_job_that_travelled(tmp_path):
    """Trained and tested, it gives the predictions of the job that stayed."""
    file = write(tmp_path)
    here, there = Planned(file, tmp_path / "here"), Planned(file, tmp_path / "there")
    here.carry_out()
    there.jobs = lambda: [job_from_json(job_to_json(job)) for job in Planned.jobs(there)]
    there.carry_out()
    first, second = ((one.result("baseline") / "predictions.parquet").read_bytes() for one in (here, there))
    assert first == second
