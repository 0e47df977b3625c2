"""Mixing. Shapes: B batch, C classes or channels, H height, W width."""

import math

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from scipy import stats
from torch.nn import functional

from ablation.errors import ConfigError
from ablation.techniques.losses import CrossEntropy
from ablation.techniques.mixing import CMO, Classes, CutMix, MixUp, NoMix, Remix, Switch, beta_draws, partners
from ablation.techniques.samplers import Power
from ablation.techniques.technique import make

COUNTS = [90, 30, 29]
CLASSES = Classes(torch.tensor(COUNTS, dtype=torch.float32), torch.tensor([False, False, True]))
EVERY = [
    NoMix(),
    MixUp(),
    CutMix(),
    CutMix(only="tail"),
    CutMix(fixed_lambda=0.4),
    Remix(),
    CMO(),
    Switch(),
    Switch(one=Remix(), other=CMO()),
    Switch(one=CutMix(only="tail"), other=NoMix()),
]
each = pytest.mark.parametrize("technique", EVERY, ids=str)


def batch(num_images=6, height=12, width=16, seed=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num_images, 3, height, width, generator=generator), torch.eye(3)[torch.arange(num_images) % 3]


def mixed_by(technique, images, targets, draws, seed=6):
    """What the technique makes of a batch; a second one comes along only where it is asked for."""
    second = batch(len(images), *images.shape[-2:], seed) if technique.second is not None else None
    if second is not None:
        second = (second[0].to(images), second[1].flip(0).to(targets))
    return technique(images, targets, draws, CLASSES, second)


def rows(technique, number=0, num_batches=40, batch_size=6, seed=0):
    """One batch's slices of an epoch's draws."""
    drawn = technique.draw(torch.Generator().manual_seed(seed), num_batches, batch_size)
    return {name: table[number] for name, table in drawn.items()}


def plain_box(weight, center, height, width):
    """The box of the official CutMix code, in plain Python: first and last row, first and last column."""
    cut = math.sqrt(1 - weight)
    box = []
    for side, place in ((height, center[0]), (width, center[1])):
        size, middle = int(side * cut), int(side * place)
        box += [min(max(middle - size // 2, 0), side), min(max(middle + size // 2, 0), side)]
    return box


def test_no_mix_returns_the_same_tensors():
    """Absence draws nothing and changes nothing."""
    images, targets = batch()
    mixed = NoMix()(images, targets, rows(NoMix()), CLASSES)
    assert mixed[0] is images
    assert mixed[1] is targets


@pytest.mark.parametrize("spec", ["mixup", {"name": "mixup", "alpha": 0.2}, {"name": "mixup", "lambda": 0.4}], ids=str)
def test_mixup_is_the_weighted_sum(spec):
    """Images and targets are m * x1 + (1 - m) * x2, computed in NumPy."""
    technique, (images, targets) = make("mixing", spec), batch()
    draws = rows(technique)
    weight, partner = draws["lambda"].item(), draws["partner"].numpy()
    mixed_images, mixed_targets = technique(images, targets, draws, CLASSES)
    np.testing.assert_allclose(mixed_images, weight * images.numpy() + (1 - weight) * images.numpy()[partner], rtol=1e-5)
    np.testing.assert_allclose(mixed_targets, weight * targets.numpy() + (1 - weight) * targets.numpy()[partner], rtol=1e-5)
    assert not torch.equal(mixed_images, images)


@pytest.mark.parametrize(("mixing", "others"), [(MixUp, {}), (CutMix, {"only": "all"})])
def test_a_fixed_lambda_takes_alpha_away(mixing, others):
    """The resolved settings name one of the two, and make the technique again."""
    name = mixing().name
    technique = make("mixing", {"name": name, "lambda": 0.4})
    assert technique.model_dump(by_alias=True) == {"name": name, "alpha": None, "lambda": 0.4} | others
    assert make("mixing", {"name": name, "alpha": 1.0, "lambda": 0.4}) == technique
    assert technique == mixing(fixed_lambda=0.4)
    assert technique.draw(torch.Generator(), 3, 2)["lambda"].tolist() == [0.4] * 3


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_mixup_at_its_ends(weight):
    """lambda 1 keeps the image, lambda 0 takes the partner's."""
    technique, (images, targets) = MixUp(fixed_lambda=weight), batch()
    draws = rows(technique)
    kept = torch.arange(6) if weight else draws["partner"]
    mixed_images, mixed_targets = technique(images, targets, draws, CLASSES)
    assert torch.equal(mixed_images, images[kept])
    assert torch.equal(mixed_targets, targets[kept])


@pytest.mark.parametrize("alpha", [0.001, 0.2, 0.4, 1.0, 8.0])
def test_weights_follow_the_beta_distribution(alpha):
    """The draws pass the Kolmogorov-Smirnov test against SciPy's distribution, for small alphas too."""
    weights = beta_draws(alpha, 4000, torch.Generator().manual_seed(0)).numpy()
    assert weights.min() >= 0
    assert weights.max() <= 1
    if alpha < 0.01:  # nearly all are 0 or 1 as floats, and half each
        assert np.mean(weights > 0.5) == pytest.approx(0.5, abs=0.03)
    else:
        assert stats.kstest(weights, stats.beta(alpha, alpha).cdf).pvalue > 0.01


@pytest.mark.parametrize("technique", [MixUp(), CutMix()])
def test_partners_are_a_permutation_of_the_batch(technique):
    """Each batch has a permutation of its own, and every pairing comes equally often."""
    partner = technique.draw(torch.Generator().manual_seed(0), 3000, 4)["partner"]
    assert torch.equal(partner.sort(1).values, torch.arange(4).expand(3000, 4))
    shares = torch.stack([(partner == place).float().mean(0) for place in range(4)])
    torch.testing.assert_close(shares, torch.full((4, 4), 0.25), atol=0.04, rtol=0)


@each
@pytest.mark.parametrize("num_images", [1, 2, 4])
def test_a_short_last_batch_is_mixed_within_itself(technique, num_images):
    """Fewer images than drawn for, or one alone, are paired by a permutation of their own."""
    images, targets = batch(num_images)
    draws = rows(technique, batch_size=6)
    mixed_images, mixed_targets = mixed_by(technique, images, targets, draws)
    assert mixed_images.shape == images.shape
    torch.testing.assert_close(mixed_targets.sum(1), torch.ones(num_images))
    for name in ("partner", "one.partner", "other.partner"):
        if name in draws:
            assert sorted(partners(draws[name], num_images).tolist()) == list(range(num_images))


@pytest.mark.parametrize("technique", [MixUp(), CutMix(), Remix()], ids=str)
def test_one_image_is_its_own_partner(technique):
    """A batch of one keeps its target, and its image but for rounding."""
    images, targets = batch(1)
    mixed_images, mixed_targets = mixed_by(technique, images, targets, rows(technique, batch_size=1))
    torch.testing.assert_close(mixed_images, images)
    torch.testing.assert_close(mixed_targets, targets)


@each
def test_one_class_stays_certain(technique):
    """With a single class all targets stay."""
    images, targets = batch()[0], torch.ones(6, 1)
    classes = Classes(torch.tensor([5.0]), torch.tensor([True]))
    second = (images.flip(0), targets) if technique.second is not None else None
    torch.testing.assert_close(technique(images, targets, rows(technique), classes, second)[1], targets)


@pytest.mark.parametrize("number", range(12))
@pytest.mark.parametrize("fixed_lambda", [None, 0.0, 0.4])
@pytest.mark.parametrize("only", ["all", "tail"])
def test_cutmix_equals_the_official_box(number, fixed_lambda, only):
    """The pasted box, its clipping and the recomputed lambda equal plain Python, pair by pair."""
    technique, (images, targets) = CutMix(only=only, fixed_lambda=fixed_lambda), batch()
    draws = rows(technique, number)
    assert fixed_lambda in (None, draws["lambda"].item())
    mixed_images, mixed_targets = technique(images, targets, draws, CLASSES)
    top, bottom, left, right = plain_box(draws["lambda"].item(), draws["center"].tolist(), 12, 16)
    for i, j in enumerate(draws["partner"].tolist()):
        expected, weight = images[i].clone(), 1.0
        if only == "all" or 2 in (i % 3, j % 3):
            expected[:, top:bottom, left:right] = images[j][:, top:bottom, left:right]
            weight = 1 - (bottom - top) * (right - left) / (12 * 16)
        assert torch.equal(mixed_images[i], expected)
        torch.testing.assert_close(mixed_targets[i], weight * targets[i] + (1 - weight) * targets[j])


def test_a_box_without_area_is_told():
    """lambda 1 pastes nothing; lambda 0 is another image but for the border, which is no reason to refuse it."""
    images, targets = batch()
    unchanged = CutMix(fixed_lambda=1.0)(images, targets, rows(CutMix(fixed_lambda=1.0)), CLASSES)
    assert torch.equal(unchanged[0], images)
    assert torch.equal(unchanged[1], targets)
    assert "lambda 1" in CutMix(fixed_lambda=1.0).why_neutral
    assert [CutMix(fixed_lambda=weight).why_neutral for weight in (None, 0.0, 0.4)] == [""] * 3


def test_cutmix_changes_images_and_targets():
    """Over an epoch most batches are changed, and tail-only changes fewer images."""
    images, targets = batch()
    changed = {}
    for technique in (CutMix(), CutMix(only="tail")):
        mixed = [technique(images, targets, rows(technique, number), CLASSES)[0] for number in range(40)]
        changed[technique.only] = sum((mixed_images != images).flatten(1).any(1).sum().item() for mixed_images in mixed)
    assert changed["all"] > changed["tail"] > 40


@each
def test_half_precision_images_stay_so(technique):
    """Mixing keeps the types of images and targets."""
    images, targets = batch()
    mixed_images, mixed_targets = mixed_by(technique, images.bfloat16(), targets, rows(technique))
    assert mixed_images.dtype == torch.bfloat16
    assert mixed_targets.dtype == torch.float32


@each
def test_runs_without_values(technique):
    """The whole computation runs on a device that has shapes but no values, so that a GPU never waits for the host."""
    images, targets = (tensor.to("meta") for tensor in batch())
    draws = {name: row.to("meta") for name, row in rows(technique).items()}
    second = (images, targets) if technique.second is not None else None
    mixed_images, mixed_targets = technique(images, targets, draws, Classes(*(tensor.to("meta") for tensor in CLASSES)), second)
    assert (mixed_images.shape, mixed_targets.shape) == (images.shape, targets.shape)


@each
def test_settings_make_it_again(technique):
    """The dumped settings make an equal technique, and there is a schema of them."""
    assert make("mixing", technique.model_dump(by_alias=True, mode="json")) == technique
    assert TypeAdapter(type(technique)).json_schema()["properties"]["name"]["const"] == technique.name


def test_what_they_say_of_themselves():
    """Each says whether it asks for the tail, draws a second batch, and depends on the length; a switch says what its parts say."""
    assert [str(mixing.needs_tail)[0] for mixing in EVERY] == list("FFFTFFFFFT")
    assert [mixing.second for mixing in EVERY] == [None, None, None, None, None, None, Power(power=0.0), None, Power(power=0.0), None]
    assert [str(mixing.depends_on_length)[0] for mixing in EVERY] == list("FFFFFFTFTF")
    assert [all(mixing.is_on(epoch, 30) for epoch in range(30)) for mixing in EVERY] == [mixing.second is None for mixing in EVERY]


# --- remix ---------------------------------------------------------------------------------------------------------------------------


def plain_label_weight(weight, count, other, kappa=3.0, tau=0.5):
    """The first label's weight by the paper's three cases, in plain Python."""
    if count / other >= kappa and weight < tau:
        return 0.0
    if count / other <= 1 / kappa and 1 - weight < tau:
        return 1.0
    return weight


@pytest.mark.parametrize("number", range(12))
@pytest.mark.parametrize("settings", [{}, {"kappa": 1.0}, {"kappa": 3.05}, {"tau": 0.2}, {"tau": 1.0}, {"tau": 0.0}], ids=str)
def test_remix_equals_the_three_cases(number, settings):
    """Images are mixed as MixUp does, each pair's targets by the paper's case for its two counts."""
    technique, (images, targets) = Remix(**settings), batch()
    draws = rows(technique, number)
    weight = draws["lambda"].item()
    mixed_images, mixed_targets = technique(images, targets, draws, CLASSES)
    torch.testing.assert_close(mixed_images, MixUp()(images, targets, draws, CLASSES)[0])
    for i, j in enumerate(draws["partner"].tolist()):
        own = plain_label_weight(weight, COUNTS[i % 3], COUNTS[j % 3], technique.kappa, technique.tau)
        torch.testing.assert_close(mixed_targets[i], own * targets[i] + (1 - own) * targets[j])


@pytest.mark.parametrize(
    ("weight", "own", "partner", "expected"),
    [
        (0.4, 90, 30, 0.0),  # common with rare, and less than half of it: all goes to the rare one
        (0.6, 90, 30, 0.6),  # enough of the common one
        (0.6, 30, 90, 1.0),  # mirrored
        (0.4, 30, 90, 0.4),
        (0.4, 89, 30, 0.4),  # just not three times as common
        (0.5, 90, 30, 0.5),  # exactly tau is not below it
        (0.4, 30, 30, 0.4),
    ],
)
def test_remix_by_hand(weight, own, partner, expected):
    """The label's weight is the one worked out by hand."""
    result = Remix().label_weights(torch.tensor(weight), torch.tensor([float(own)]), torch.tensor([float(partner)]))
    torch.testing.assert_close(result, torch.tensor([expected]))


def test_remix_weighs_each_pair_and_not_their_mean():
    """The loss is the mean over pairs of l * CE1 + (1 - l) * CE2; with one mean l for the batch it would be another.

    Some code multiplies each l into losses that were averaged over the batch before, so that every pair gets the mean l and the
    rare class's gain is given to all.
    """
    images, targets = batch()
    draws = {"lambda": torch.tensor(0.3, dtype=torch.float64), "partner": torch.tensor([1, 2, 0, 5, 3, 4])}
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    minus_logs = -functional.log_softmax(logits, dim=1)
    pairs = [(i, i % 3, j % 3) for i, j in enumerate(draws["partner"].tolist())]
    own = [plain_label_weight(0.3, COUNTS[a], COUNTS[b]) for _, a, b in pairs]
    each_pair = sum(w * minus_logs[i, a] + (1 - w) * minus_logs[i, b] for w, (i, a, b) in zip(own, pairs, strict=True)) / 6
    mean = sum(own) / 6
    collapsed = mean * sum(minus_logs[i, a] for i, a, _ in pairs) / 6 + (1 - mean) * sum(minus_logs[i, b] for i, _, b in pairs) / 6
    loss = CrossEntropy()(logits, Remix()(images, targets, draws, CLASSES)[1], CLASSES.counts_C)
    torch.testing.assert_close(loss, each_pair)
    assert len(set(own)) > 1
    assert abs(loss - collapsed) > 0.01


def test_remix_gives_rare_classes_more_than_mixup():
    """Over an epoch the rarer classes' share of the targets grows, and the common one's falls."""
    images, targets = batch()
    shares = {}
    for technique in (MixUp(), Remix()):
        result = [technique(images, targets, rows(technique, number), CLASSES)[1].sum(0) for number in range(40)]
        shares[technique.name] = torch.stack(result).sum(0)
    assert shares["remix"][0] < shares["mixup"][0] - 5
    assert (shares["remix"][1:] > shares["mixup"][1:] + 2).all()


# --- cmo -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(12))
def test_cmo_equals_the_official_code(number):
    """A mixed batch has the second batch's boxes and targets by the clipped area, the others stay, in plain Python."""
    technique, (images, targets) = CMO(), batch()
    foregrounds, labels = batch(seed=9)[0], targets.flip(0)
    draws = rows(technique, number)
    mixed_images, mixed_targets = technique(images, targets, draws, CLASSES, (foregrounds, labels))
    top, bottom, left, right = plain_box(draws["lambda"].item(), draws["center"].tolist(), 12, 16)
    expected, weight = images.clone(), 1.0
    if draws["mixed"]:
        expected[:, :, top:bottom, left:right] = foregrounds[:, :, top:bottom, left:right]
        weight = 1 - (bottom - top) * (right - left) / (12 * 16)
    assert torch.equal(mixed_images, expected)
    torch.testing.assert_close(mixed_targets, weight * targets + (1 - weight) * labels)


def test_the_share_of_a_clipped_box():
    """Half the side at a corner leaves a quarter of the box: 1/16 of the area, and not the drawn 1/4."""
    images, targets = batch(height=16)
    draws = {"lambda": torch.tensor(0.75), "center": torch.zeros(2), "mixed": torch.tensor(True)}
    _, mixed_targets = CMO()(images, targets, draws, CLASSES, (images, targets.roll(1, 0)))
    torch.testing.assert_close(mixed_targets, 15 / 16 * targets + 1 / 16 * targets.roll(1, 0))


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.5, 1.0])
def test_cmo_mixes_batches_with_its_probability(probability):
    """The share of batches that are mixed is the probability, and it acts or not accordingly."""
    technique, (images, targets) = CMO(probability=probability), batch()
    drawn = technique.draw(torch.Generator().manual_seed(0), 4000, 6)["mixed"]
    assert drawn.float().mean().item() == pytest.approx(probability, abs=0.03)
    changed = [not torch.equal(mixed_by(technique, images, targets, rows(technique, number))[0], images) for number in range(40)]
    assert any(changed) == (probability > 0)


@pytest.mark.parametrize(("alpha", "power"), [(1.0, 0.0), (0.5, 0.5), (0.0, 1.0)])
def test_cmo_draws_foregrounds_by_its_alpha(alpha, power):
    """An image weighs 1 / n ** alpha of its class, so that a class has n ** (1 - alpha)."""
    chances = CMO(alpha=alpha).second.probabilities_C(CLASSES.counts_C, 0, 30)
    masses = [n * n**-alpha for n in COUNTS]
    assert CMO(alpha=alpha).second == Power(power=power)
    torch.testing.assert_close(chances, torch.tensor([mass / sum(masses) for mass in masses], dtype=torch.float64))


@pytest.mark.parametrize(
    ("technique", "num_epochs", "on"),
    [
        (CMO(), 200, range(4, 197)),  # the official 3 < epoch < 200 - 3
        (CMO(), 8, [4]),
        (CMO(), 7, []),
        (CMO(off_first=0, off_last=0), 3, range(3)),
        (CMO(off_first="1/10", off_last="1/10"), 10, range(1, 9)),
        (CMO(off_first=0.1, off_last=0.1), 5, range(1, 4)),  # half an epoch is a whole one
        (Switch(one=CMO(), other=MixUp()), 10, range(4, 7)),
    ],
    ids=str,
)
def test_cmo_is_off_at_both_ends(technique, num_epochs, on):
    """It mixes in the epochs between the first and the last ones, counted or as fractions, and a switch with it does alike."""
    assert [epoch for epoch in range(num_epochs) if technique.is_on(epoch, num_epochs)] == list(on)


# --- switch --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "other"), [(MixUp(), CutMix()), (NoMix(), Remix()), (CMO(), CutMix(only="tail"))], ids=str)
def test_a_switch_is_one_of_its_parts(one, other):
    """Each batch is what the part that was drawn makes of it with its own draws; both come up."""
    technique, (images, targets) = Switch(one=one, other=other), batch()
    taken = set()
    for number in range(12):
        draws = rows(technique, number)
        part, prefix = (other, "other.") if draws["other"] else (one, "one.")
        own = {name[len(prefix) :]: row for name, row in draws.items() if name.startswith(prefix)}
        result, expected = mixed_by(technique, images, targets, draws), mixed_by(part, images, targets, own)
        assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))
        taken.add(prefix)
    assert len(taken) == 2


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_a_switch_takes_the_other_with_its_probability(probability):
    """The share of batches that go to the other is the probability."""
    drawn = Switch(probability=probability).draw(torch.Generator().manual_seed(0), 4000, 2)["other"]
    assert drawn.float().mean().item() == pytest.approx(probability, abs=0.03)


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"one": "switch"}, "at.one"),
        ({"other": {"name": "switch", "one": "none"}}, "at.other"),
        ({"one": "cmo", "other": {"name": "cmo", "alpha": 0.5}}, "at.other"),
        ({"one": {"name": "mixup", "alpha": 0}}, "at.one.alpha"),
        ({"other": "cutmx"}, "at.other"),
        ({"probability": 1.5}, "at.probability"),
    ],
)
def test_what_a_switch_does_not_take(spec, path):
    """A switch in a switch, two second batches and wrong parts are told with their place."""
    with pytest.raises(ConfigError) as caught:
        make("mixing", {"name": "switch", **spec}, "at")
    assert caught.value.path == path
    assert "expected" in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"name": "remix", "kappa": 0.5}, "at.kappa"),
        ({"name": "remix", "tau": 1.5}, "at.tau"),
        ({"name": "remix", "alpha": 0}, "at.alpha"),
        ({"name": "cmo", "alpha": -0.5}, "at.alpha"),
        ({"name": "cmo", "probability": 2.0}, "at.probability"),
        ({"name": "cmo", "off_first": -1}, "at.off_first"),
        ({"name": "cmo", "off_last": "3/2"}, "at.off_last"),
    ],
)
def test_values_out_of_range(spec, path):
    """A wrong value is told with its place."""
    with pytest.raises(ConfigError) as caught:
        make("mixing", spec, "at")
    assert caught.value.path == path
