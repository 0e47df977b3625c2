"""The shares of a plan: every run once, whole trees, balanced, and the same wherever they are computed."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablation.planning.parts import identity, shares
from ablation.planning.plan import make_plan
from ablation.planning.states import RecordedState
from tests import parts
from tests.studies import BASE, planner, study


def keys(split):
    return [[run.key for run in share] for share in split]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.floats(0.1, 100)), min_size=1, max_size=12), st.integers(1, 8))
def test_every_run_is_in_one_share_with_its_tree(trees, num_parts):
    """Each run once, those of a tree together, no share with more than the average and one tree, and the same for the same plan."""
    nodes, runs = [], []
    for number, (size, seconds) in enumerate(trees):
        nodes += [parts.node(f"s{number}", seconds=seconds), *(parts.node(f"s{number}.{i}", f"s{number}") for i in range(1, size))]
        runs += [parts.run(f"a{number}", f"r{number}.{i}", f"s{number}.{i}" if i else f"s{number}") for i in range(size)]
    plan = parts.plan(nodes, runs)
    split = keys(shares(plan, num_parts))
    assert sorted(key for share in split for key in share) == sorted(run.key for run in runs)
    assert all(
        len({share for share, members in enumerate(split) if f"r{n}.0" in members or f"r{n}.1" in members}) == 1 for n in range(len(trees))
    )
    costs = {f"r{n}.0": seconds + size - 1 for n, (size, seconds) in enumerate(trees)}
    loads = [sum(costs.get(key, 0) for key in share) for share in split]
    assert max(loads) <= sum(costs.values()) / num_parts + max(costs.values()) + 1e-6
    assert keys(shares(plan, num_parts)) == split


def test_the_longest_go_first():
    """Three trees of 9, 5 and 5 seconds in two parts: 9 and 10, not 14 and 5."""
    nodes = [parts.node("a", seconds=5.0), parts.node("b", seconds=9.0), parts.node("c", seconds=5.0)]
    plan = parts.plan(nodes, [parts.run(name, f"r{name}", name) for name in "abc"])
    assert keys(shares(plan, 2)) == [["rb"], ["ra", "rc"]]


def test_more_parts_than_trees_leave_some_empty():
    """A tree is not divided."""
    assert keys(shares(parts.three_runs(), 4)) == [["r1", "r2"], ["r3"], [], []]


def test_trees_of_the_same_stages_are_alike_in_every_process():
    """In whatever order their seconds are summed up, which a process decides by chance: they stay in the plan's order."""
    seconds = [0.1, 0.7, 1e9, 0.3, 1e-3, 123.4, 5.6]
    nodes = [parts.node(f"{n}.{i}", f"{n}.0" if i else "", seconds=cost) for n in range(30) for i, cost in enumerate(seconds)]
    plan = parts.plan(nodes, [parts.run(one.job.key, f"r{one.job.key}", one.job.key) for one in nodes])
    firsts = [[key for key in share if key.endswith(".0")] for share in keys(shares(plan, 3))]
    assert firsts == [[f"r{n}.0" for n in range(first, 30, 3)] for first in range(3)]


def test_where_the_seconds_of_one_stage_are_unknown_images_count():
    """A short training of known speed does not weigh as nothing beside long ones of unknown speed."""
    nodes = [
        parts.node("a", seconds=0.0, epochs=90, items=1000),
        parts.node("b", seconds=50.0, epochs=10, items=1000),
        parts.node("c", seconds=0.0, epochs=90, items=1000),
        parts.node("d", seconds=40.0, epochs=10, items=1000),
    ]
    for one in nodes:
        one.testing = 0.0
    plan = parts.plan(nodes, [parts.run(name, f"r{name}", name) for name in "abcd"])
    assert keys(shares(plan, 2)) == [["ra", "rb"], ["rc", "rd"]]


def test_what_is_computed_is_in_no_share_and_changes_no_identity():
    """The identity goes by what the store lacks, so that it is the same before and after a part has ended."""
    before = parts.three_runs()
    after = parts.three_runs()
    after.runs[0].state, after.runs[0].needed = "evaluated", False
    after.waiting = after.runs[1:]
    assert keys(shares(after, 2)) == [["r2"], ["r3"]]
    assert identity(before, 2) == identity(after, 2)
    assert identity(before, 2) != identity(before, 3)
    after.runs[0].state = "done"
    assert identity(before, 2) != identity(after, 2)


def test_runs_that_choose_are_in_no_share():
    """They follow from those among which they choose, whose parts may be several."""
    made = parts.three_runs()
    choosing = parts.run("best", "r9", "s1", choice=SimpleNamespace(among=("base", "other")))
    made.runs.append(choosing)
    made.waiting.append(choosing)
    assert all("r9" not in share for share in keys(shares(made, 2)))


@pytest.mark.parametrize("part", [0, 1])
def test_a_plan_of_a_part_has_no_other_work(tmp_path, part):
    """make_plan(only=): the keys stay what they are, and all stages together are those of the whole plan."""
    written = study(tmp_path, seeds=(0, 1), base={**BASE, "epochs": 4}, variants={"cb": {"sampler": "class_balanced"}})
    names = [arm.name for arm in written.arms]

    def planned(only=None):
        return make_plan(written, written.seeds, names, planner(written, None), RecordedState(), only=only)

    whole = planned()
    split = keys(shares(whole, 2))
    restricted = planned(split[part])
    assert [run.key for run in restricted.runs] == [run.key for run in whole.runs]
    assert {run.key for run in restricted.waiting} == set(split[part])
    work = [{key for key, one in planned(some).nodes.items() if one.state != "done"} for some in split]
    assert work[0] | work[1] == set(whole.nodes)
    assert not work[0] & work[1]
