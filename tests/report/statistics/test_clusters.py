"""Images of one patient count as one: the interval and the test over test images, with groups. N images, G groups, C classes."""

import itertools

import numpy as np
import pandas as pd
import pytest

from ablation.report.statistics import images
from tests.report.statistics.test_images import ARM, BASE, PAIRS, results

GROUPS, EACH = 60, 5
GROUP_N = np.repeat(np.arange(GROUPS), EACH).astype(np.int32)
ONE = np.zeros(GROUPS * EACH, np.int32)  # one stratum: accuracy


def agreeing(seed, share=0.8):
    """Changes of images: a patient's are mostly alike. The true mean is 0.1."""
    generator = np.random.default_rng(seed)
    of_group_N = generator.choice([-1, 0, 1], GROUPS, p=[0.1, 0.7, 0.2])[GROUP_N]
    return np.where(generator.random(len(GROUP_N)) < share, of_group_N, generator.choice([-1, 0, 1], len(GROUP_N), p=[0.1, 0.7, 0.2]))


def grouped(tables, group_N):
    return [table.assign(group=group_N) for table in tables]


def test_groups_of_one_image_change_nothing():
    """Where every image is a patient of its own, all is as without groups, whatever their numbers."""
    group_N = 7 * np.random.default_rng(0).permutation(len(BASE[0]))
    alone, plain = results(baseline=grouped(BASE, group_N), a=grouped(ARM, group_N)), results(baseline=BASE, a=ARM)
    pd.testing.assert_frame_equal(images.image_rows(PAIRS, alone), images.image_rows(PAIRS, plain))
    pd.testing.assert_frame_equal(images.mcnemar_rows(PAIRS, alone), images.mcnemar_rows(PAIRS, plain))


def test_groups_that_agree_say_less_than_their_images():
    """Five images of a patient that go one way are hardly more than one: the interval is about twice as wide, and p is larger."""
    for seed in range(5):
        changes_N = agreeing(seed)
        wide, naive = images.bootstrap(changes_N, ONE, 100, GROUP_N), images.bootstrap(changes_N, ONE, 100)
        assert wide[0] == pytest.approx(naive[0])
        assert 1.5 < (wide[2] - wide[1]) / (naive[2] - naive[1]) < 2.3
        exact = images.mcnemar_p(*(np.array([(changes_N == sign).sum()]) for sign in (1, -1)))[0]
        assert images.group_flip_p(changes_N, GROUP_N) > exact


def test_images_that_do_not_agree_say_as_much_as_without_groups():
    """Independent images of a patient: both intervals are about as wide."""
    ratios = []
    for seed in range(20):
        wide, naive = (images.bootstrap(agreeing(seed, 0.0), ONE, 100, group_N) for group_N in (GROUP_N, None))
        ratios.append((wide[2] - wide[1]) / (naive[2] - naive[1]))
    assert np.mean(ratios) == pytest.approx(1, abs=0.05)


def test_the_interval_of_groups_covers():
    """Of 400 samples about 95 of 100 intervals over groups hold the true mean; those over single images are far from it."""
    samples = [agreeing(seed) for seed in range(400)]
    covered = {
        name: np.mean([low <= 10 <= high for _, low, high in (images.bootstrap(values_N, ONE, 100, group_N) for values_N in samples)])
        for name, group_N in (("groups", GROUP_N), ("images", None))
    }
    assert covered["groups"] == pytest.approx(0.94, abs=0.03)
    assert covered["images"] < 0.8


def test_the_test_of_groups_holds_its_level():
    """Where neither arm is better, about 5 of 100 samples have p below 0.05; McNemar's test finds far more."""
    found = {"groups": [], "images": []}
    for seed in range(400):
        generator = np.random.default_rng(seed)
        changes_N = agreeing(seed) * generator.choice([-1, 1], GROUPS)[GROUP_N]
        found["groups"].append(images.group_flip_p(changes_N, GROUP_N) < 0.05)
        gained, lost = (np.array([(changes_N == sign).sum()]) for sign in (1, -1))
        found["images"].append(images.mcnemar_p(gained, lost)[0] < 0.05)
    assert 0.02 < np.mean(found["groups"]) < 0.07
    assert np.mean(found["images"]) > 0.15


@pytest.mark.parametrize("seed", range(6))
def test_signs_of_groups_are_all_flipped(seed):
    """The p is the share of all 2^G sign patterns whose sum is at least as far from 0."""
    generator = np.random.default_rng(seed)
    group_N = np.sort(generator.integers(0, 11, 40)).astype(np.int32)
    changes_N = generator.choice([-1, 0, 1], 40, p=[0.2, 0.5, 0.3])
    sums_G = np.bincount(group_N, weights=changes_N)
    flipped = np.array(list(itertools.product([-1, 1], repeat=len(sums_G)))) @ sums_G
    assert images.group_flip_p(changes_N, group_N) == pytest.approx((np.abs(flipped) >= abs(sums_G.sum())).mean())


def test_nothing_moved_has_p_1():
    """No image was gained or lost."""
    assert images.group_flip_p(np.zeros(9, np.int64), np.repeat([0, 1, 2], 3).astype(np.int32)) == 1.0


@pytest.mark.parametrize("pure", [True, False])
def test_balanced_accuracy_of_groups(pure):
    """Its interval is that of drawing patients again: within their class if each has one, and all together if not."""
    generator = np.random.default_rng(3)
    class_G = generator.choice(3, GROUPS, p=[0.6, 0.3, 0.1])
    labels_N = (class_G[GROUP_N] if pure else generator.choice(3, len(GROUP_N), p=[0.6, 0.3, 0.1])).astype(np.int32)
    changes_N = agreeing(1)
    mean, low, high = images.bootstrap(changes_N, labels_N, 100, GROUP_N)
    rows_G = [np.flatnonzero(g == GROUP_N) for g in range(GROUPS)]
    drawn = []
    for _ in range(4000):
        within = [generator.choice(np.flatnonzero(class_G == c), (class_G == c).sum()) for c in range(3)]
        taken = np.concatenate([rows_G[g] for g in (np.concatenate(within) if pure else generator.integers(0, GROUPS, GROUPS))])
        drawn.append(np.mean([changes_N[taken][labels_N[taken] == c].mean() for c in np.unique(labels_N[taken])]))
    assert mean == pytest.approx(100 * np.mean([changes_N[labels_N == c].mean() for c in range(3)]))
    assert [low, high] == pytest.approx((100 * np.quantile(drawn, [0.025, 0.975])).tolist(), abs=1.2)


def test_groups_of_other_sizes_and_gaps_in_their_numbers():
    """A table's groups need not be numbered from 0, since test images are a part of all; sizes may differ."""
    generator = np.random.default_rng(5)
    group_N = 100 + 3 * np.sort(generator.integers(0, 40, len(BASE[0])))
    by_arm = results(baseline=grouped(BASE, group_N), a=grouped(ARM, group_N))
    rows = images.image_rows(PAIRS, by_arm)
    plain = images.image_rows(PAIRS, results(baseline=BASE, a=ARM))
    np.testing.assert_allclose(rows["mean"], plain["mean"])
    assert np.isfinite(rows[["low", "high"]].to_numpy()).all()
    assert images.mcnemar_rows(PAIRS, by_arm)["p"].between(0, 1).all()


def test_a_class_of_one_patient_has_no_interval():
    """Whether or not that patient has images of another class: nothing shows how another patient's images would differ."""
    labels_N = np.repeat([0, 1], [200, 5]).astype(np.int32)
    changes_N = labels_N.astype(np.int64)
    for patient in (40, 0):  # patient 0 has images of the other class, too
        group_N = np.concatenate([np.repeat(np.arange(40), 5), np.full(5, patient)]).astype(np.int32)
        assert images.bootstrap(changes_N, labels_N, 100, group_N) == pytest.approx((50.0, np.nan, np.nan), nan_ok=True)
    group_N[-1] = 1
    assert np.isfinite(images.bootstrap(changes_N, labels_N, 100, group_N)).all()
