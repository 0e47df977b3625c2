"""Drawn parts: equal pixels stay on one side, and nothing changes where no two images are equal."""

import shutil

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablation.data import split
from ablation.data.drawing import joined_groups, take_test
from ablation.data.source import TEST
from ablation.errors import DataError
from ablation.techniques.technique import make
from tests.data.image_sources import class_tree, distinct_images, opened, picture, save


def inspections_of(pictures):
    """Inspections of images, equal where their numbers are."""
    inspections_N = distinct_images(len(pictures))
    inspections_N["digest"] = inspections_N["digest"][np.array(pictures)]
    return inspections_N


@settings(deadline=None, derandomize=True, database=None)
@given(images=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=8))
def test_groups_are_joined_as_the_graph_of_groups_and_pictures_is(images):
    """Two images are in one joined group if and only if a path of shared groups and pictures leads from one to the other."""
    groups, pictures = np.array([group for group, _ in images]), [picture % len(images) for _, picture in images]
    graph = networkx.Graph()
    graph.add_edges_from((f"group {group}", f"picture {picture}") for group, picture in zip(groups, pictures, strict=True))
    component = {node: i for i, nodes in enumerate(networkx.connected_components(graph)) for node in nodes}
    expected = [component[f"group {group}"] for group in groups]
    joined = joined_groups(groups, inspections_of(pictures)).tolist()
    assert len(set(zip(expected, joined, strict=True))) == len(set(expected)) == len(set(joined))


def test_groups_without_equal_images_keep_their_numbers():
    """Then every draw is what it was without looking at pixels."""
    group_N = np.array([4, 4, 0, 2, 9])
    assert joined_groups(group_N, distinct_images(5)).tolist() == group_N.tolist()


def test_blank_images_join_nothing():
    """A picture of one colour may be in every patient's series."""
    inspections_N = inspections_of([0, 0, 0, 0])
    inspections_N["is_blank"] = True
    assert joined_groups(np.arange(4), inspections_N).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("part", ["test", "validation"])
def test_copies_never_straddle_a_drawn_split(tmp_path, part):
    """Of 20 pictures that lie there three times each, every copy is where the first one is."""
    root = class_tree(tmp_path / "p", {"a": 20, "b": 20})
    for c in "ab":
        for path in sorted((root / c).glob("*.png")):
            for copy in "xy":
                shutil.copy(path, path.with_name(f"{copy}{path.name}"))
    spec = {"name": "folder", "root": "p", "test": 0.3, "validation": 0.3 if part == "validation" else 0.0}
    dataset = opened(spec, tmp_path)
    parts = split(dataset, make("data", spec), 0)
    sides = [parts.test_N, *([parts.validation_N] if part == "validation" else []), parts.train_N]
    pictures = [{name.split("/")[0] + name.split("/")[1].lstrip("xy") for name in (dataset.names[i] for i in side)} for side in sides]
    assert all(pictures)
    assert sum(map(len, pictures)) == len(set.union(*pictures)) == 40


def test_copies_of_validation_images_are_never_test_images(tmp_path):
    """What selects a model must not test it: the test is drawn from the other images."""
    for i in range(10):
        for label in "ab":
            save(tmp_path / "p" / "train" / label / f"{i}.png", picture(100 * (label == "b") + i))
            if i < 7:
                save(tmp_path / "p" / "val" / label / f"{i}.png", picture(100 * (label == "b") + i))
    dataset = opened({"name": "folder", "root": "p"}, tmp_path)
    tested = [name for name, split in zip(dataset.names, dataset.split_N, strict=True) if split == TEST]
    assert len(tested) == 4
    assert {int(name.split("/")[-1].removesuffix(".png")) for name in tested} <= {7, 8, 9}


def test_the_test_of_unequal_images_is_drawn_as_before(tmp_path):
    """The draw goes by labels and groups alone, as in a source that looks at no pixels."""
    class_tree(tmp_path / "p", {"a": 11, "b": 23})
    dataset = opened({"name": "folder", "root": "p", "test": 0.25}, tmp_path)
    drawn = take_test(dataset.labels_N, np.zeros(34, dtype=np.int8), np.arange(34), 0.25)
    names = np.unique(list(dataset.names), return_inverse=True)[1]
    assert np.array_equal(dataset.group_N, names)
    assert np.array_equal(dataset.split_N, take_test(dataset.labels_N, np.zeros(34, dtype=np.int8), dataset.group_N, 0.25))
    assert drawn.sum() == dataset.split_N.sum()


def test_a_copy_with_another_label_goes_along(tmp_path):
    """Equal pixels stay together even where their labels contradict each other."""
    root = class_tree(tmp_path / "p", {"a": 10, "b": 10})
    for i in range(10):
        shutil.copy(root / "a" / f"{i}.png", root / "b" / f"copy{i}.png")
    dataset = opened({"name": "folder", "root": "p", "test": 0.3}, tmp_path)
    side = dict(zip(dataset.names, dataset.split_N.tolist(), strict=True))
    assert all(side[f"a/{i}.png"] == side[f"b/copy{i}.png"] for i in range(10))
    assert set(side.values()) == {0, 2}


@pytest.mark.parametrize(("num_groups", "size"), [(3, 4), (2, 50), (6, 7)])
def test_large_groups_leave_each_class_some_test_images(num_groups, size):
    """Where no group brings a class closer to its few images, the one that comes nearest is taken, and never the last of a class."""
    labels_N = np.repeat([0, 1], num_groups * size)
    group_N = np.repeat(np.arange(2 * num_groups), size)
    split_N = take_test(labels_N, np.zeros(len(labels_N), dtype=np.int8), group_N, 0.05)
    assert np.bincount(labels_N[split_N == 2]).tolist() == [size, size]
    assert len(set(group_N[split_N == 2])) == 2


def test_what_cannot_be_divided_is_told():
    """All images of a class in one group."""
    with pytest.raises(DataError, match="the test split has no images: 20 % of 8 images, groups and equal images kept together"):
        take_test(np.repeat([0, 1], 4), np.zeros(8, dtype=np.int8), np.repeat([0, 1], 4), 0.2)
