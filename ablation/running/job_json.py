"""A job as JSON, for executors whose workers are not children of this process: settings travel as their form in the file."""

import json
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from ablation.planning.jobs import Job
from ablation.study.task import load_task


def job_to_json(job: Job) -> str:
    """The job as text."""
    data = {name: value for name, value in vars(job).items() if name != "work"}
    form = _of_jobs().dump_python(Job(**data, work=None), mode="json")
    return json.dumps(form | {"work": _of_works(job.task).dump_python(job.work, mode="json", by_alias=True)})


def job_from_json(text: str) -> Job:
    """The job of such a text, equal to the one that was written; raises an exception if a technique in it is no longer there.

    A technique of one's own is imported, if `allow_code` was called.
    """
    form = json.loads(text)
    return _of_jobs().validate_python(form | {"work": _of_works(form["task"]).validate_python(form["work"])})


@cache
def _of_jobs() -> TypeAdapter[Job]:
    return TypeAdapter(Job)


@cache
def _of_works(task: str) -> TypeAdapter[Any]:
    return TypeAdapter(load_task(task).work_type)
