"""What is read of a recorded run, and how long texts of it are kept within a tag."""

import json

import pytest

from ablation.planning.workspace import AMONG, ID, INPUTS, Workspace, among, among_tags, inputs_tag, short_inputs
from ablation.study.task import load_task
from ablation.tracking import texts

TAGS = {"ablation.kind": "run", "ablation.arm": "baseline", "ablation.seed": "0", "ablation.key": "k"}


def state(tmp_path, tags):
    run = {"tags": TAGS | tags, "status": "FINISHED", "run_id": "r" * 32}
    return Workspace(tmp_path).recorded_state([run], load_task("own")).runs["baseline", 0][0]


@pytest.mark.parametrize("number", [1, 384, 385, 1500])
def test_a_choice_among_many_is_found_again(tmp_path, number):
    """However many points it has: their ids are whole, none is lost."""
    ids = [f"{i:032x}"[::-1] for i in range(number)]
    tags = texts.tags(among_tags(ids))
    assert state(tmp_path, tags).among == tuple(run_id[:ID] for run_id in ids)
    assert next(iter(tags)) == AMONG


def test_no_choice_has_no_ids():
    assert among({}) == among_tags([]).get(AMONG, ()) == ()


def test_long_inputs_are_recorded_by_their_digests(tmp_path):
    """They are told apart by these, and are compared as they were recorded."""
    inputs = {"task": "toy:fit", "classes": ", ".join(f"{i:026}" for i in range(200)), "code": "c"}
    recorded = state(tmp_path, texts.tags(inputs_tag(inputs))).inputs
    assert recorded == short_inputs(inputs) == {"task": "toy:fit", "classes": recorded["classes"], "code": "c"}
    assert len(recorded["classes"]) == 32
    assert short_inputs(inputs | {"classes": inputs["classes"] + "x"}) != recorded
    whole = {INPUTS: json.dumps({"classes": "x" * 300})}  # as earlier versions recorded it
    assert state(tmp_path, whole).inputs == short_inputs({"classes": "x" * 300})


def test_the_longest_inputs_are_left_out_where_there_are_too_many():
    inputs = {"task": "toy:fit"} | {f"metric {i:090} is read": "x" * 199 for i in range(100)}
    text = inputs_tag(inputs)[INPUTS]
    assert len(text) <= texts.LONGEST_TAG
    assert json.loads(text)["task"] == "toy:fit"
    assert len(json.loads(text)) > 15


@pytest.mark.parametrize("text", ['{"task": "toy:fit", "cla', "", "[]", "null"])
def test_inputs_that_cannot_be_read_are_not_known(tmp_path, text):
    assert state(tmp_path, {INPUTS: text}).inputs == {}
