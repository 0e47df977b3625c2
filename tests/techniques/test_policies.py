"""Policies of image operations, against torchvision's per image. Shapes: B or N images, C channels, H height, W width, K operations."""

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import InterpolationMode, v2

from ablation.errors import ConfigError
from ablation.techniques.policies import (
    NAMES,
    NUM_RANDOM,
    OPERATIONS,
    POLICIES,
    USUAL,
    WIDE,
    AutoAugment,
    MaxMagnitudes,
    RandAugment,
    TrivialAugment,
    apply_operations,
    magnitude_table,
)
from ablation.techniques.technique import make

SHAPES = [(8, 8), (9, 14), (32, 32)]
TECHNIQUES = [
    AutoAugment(),
    AutoAugment(policy="imagenet"),
    AutoAugment(policy="svhn"),
    RandAugment(),
    RandAugment(num_ops=3),
    TrivialAugment(),
]
GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
SPACES = [(USUAL, v2.AutoAugment, 10), (USUAL, v2.RandAugment, 31), (WIDE, v2.TrivialAugmentWide, 31), (WIDE, v2.TrivialAugmentWide, 10)]
each_technique = pytest.mark.parametrize("technique", TECHNIQUES, ids=str)


def pictures(height=9, width=14, num_images=8, seed=7):
    """Images of 8 bits with smooth parts, noise, narrow ranges and one flat one."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(num_images, 3, height, width, generator=generator)
    slope = torch.linspace(0, 1, width) * torch.linspace(1, 0.2, height)[:, None]
    low, high = torch.rand(2, num_images, 3, 1, 1, generator=generator).sort(0).values
    images = (low + (high - low) * (0.5 * noise + 0.5 * slope)).mul(255).round().byte()
    images[-1] = 77
    return images


def draw(technique, num_images=8, seed=0):
    return technique.draw(torch.Generator().manual_seed(seed), num_images)


def levels(images):
    """Whole levels of images in [0, 1]."""
    rounded = images.double().mul(255).round()
    torch.testing.assert_close(images.double() * 255, rounded, atol=1e-3, rtol=0)
    return rounded.int()


def operate(name, magnitude, images, reach):
    draws = {"operation": torch.full((len(images), 1), NAMES.index(name)), "magnitude": torch.full((len(images), 1), magnitude)}
    return levels(apply_operations(images.float() / 255, draws, reach))


def in_torchvision(name, magnitude, image):
    transform = v2.RandAugment()
    return transform._apply_image_or_video_transform(image, name, magnitude, InterpolationMode.NEAREST, transform._fill).int()


def torchvision_magnitude(name, magnitude, shape, reach):
    """Ours as torchvision takes it: translations in pixels."""
    side = {"TranslateX": shape[1], "TranslateY": shape[0]}.get(name, 1)
    return magnitude * (1 if reach.in_pixels else side)


def decided(name, magnitude, shape):
    """Which pixels have one nearest source, from the geometry in double precision: elsewhere rounding may choose either of two."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    if name == "Rotate":
        x, y, angle = x - (shape[1] - 1) / 2, y - (shape[0] - 1) / 2, math.radians(magnitude)
        sources = [math.cos(angle) * x - math.sin(angle) * y + shape[1] / 2, math.sin(angle) * x + math.cos(angle) * y + shape[0] / 2]
    else:
        shears = {"ShearX": magnitude * (y + 0.5), "ShearY": magnitude * (x + 0.5)}
        sources = [shears.get(name, 0 * x) + 0.5]
    return torch.from_numpy(np.all([np.abs(source - np.round(source)) > 1e-4 for source in sources], axis=0))


def differences(name, magnitude, shape, ours, expected):
    """By how many levels decided pixels differ."""
    return (ours - expected).abs()[..., decided(name, magnitude, shape)]


@pytest.mark.parametrize(("reach", "theirs", "num_bins"), SPACES)
@pytest.mark.parametrize("shape", SHAPES)
def test_magnitudes_equal_torchvision(reach, theirs, num_bins, shape):
    """Each operation's magnitudes are those of torchvision's space, and those of one that has none are 0."""
    table = magnitude_table(reach, num_bins)
    assert set(theirs._AUGMENTATION_SPACE) <= set(NAMES)
    for name, (space, _) in theirs._AUGMENTATION_SPACE.items():
        expected = space(num_bins, *shape)
        expected = torch.zeros(num_bins) if expected is None else expected.float()
        result = torchvision_magnitude(name, table[NAMES.index(name)], shape, reach)
        torch.testing.assert_close(result, expected)
        if name in ("TranslateX", "TranslateY"):
            assert torch.equal(result.int(), expected.int())


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_equal_torchvision(policy):
    """The 25 pairs, with their chances and levels, are torchvision's."""
    expected = v2.AutoAugment(v2.AutoAugmentPolicy(policy))._policies
    assert [tuple((name, chance, level or 0) for name, chance, level in pair) for pair in expected] == list(POLICIES[policy])


def test_random_policies_draw_from_torchvision_s_operations():
    """The operations that are drawn are those of torchvision's spaces."""
    for theirs in (v2.RandAugment, v2.TrivialAugmentWide):
        assert list(theirs._AUGMENTATION_SPACE) == list(NAMES[:NUM_RANDOM])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("reach", "num_bins"), [(USUAL, 10), (WIDE, 31)])
@pytest.mark.parametrize("name", NAMES)
def test_an_operation_equals_torchvision(name, reach, num_bins, shape):
    """Each operation at each magnitude is torchvision's on 8 bits: the same level, or the next one where the cut meets a rounding error."""
    images, changed = pictures(*shape), 0
    for size in magnitude_table(reach, num_bins)[NAMES.index(name)].unique().tolist():
        for magnitude in {size, -size} if name in (*GEOMETRIC, "Brightness", "Color", "Contrast", "Sharpness") else {size}:
            ours = operate(name, magnitude, images, reach)
            theirs = torch.stack([in_torchvision(name, torchvision_magnitude(name, magnitude, shape, reach), image) for image in images])
            differing = differences(name, magnitude, shape, ours, theirs)
            is_cut = name in ("Brightness", "Color", "Contrast", "Sharpness", "AutoContrast")
            assert (differing <= is_cut).all()
            changed += not torch.equal(ours, images.int())
    assert changed or name == "Identity" or (name == "Equalize" and shape != (32, 32))


@pytest.mark.parametrize("magnitude", ["0.27", "-0.27", "0.9", "-0.99", "0"])
@pytest.mark.parametrize("name", ["Brightness", "Color", "Contrast", "Sharpness"])
def test_a_blend_is_cut_exactly(name, magnitude):
    """Every level is the largest whole one below the exact blend, by fractions and in plain Python."""
    images = pictures(6, 7, 4)
    result, factor = operate(name, float(magnitude), images, USUAL), 1 + Fraction(magnitude)
    for image, ours in zip(images.tolist(), result.tolist(), strict=True):
        grey = [[(2989 * image[0][y][x] + 5870 * image[1][y][x] + 1140 * image[2][y][x]) // 10000 for x in range(7)] for y in range(6)]
        mean = Fraction(sum(map(sum, grey)), 42)
        for c, y, x in np.ndindex(3, 6, 7):
            inside = 0 < y < 5 and 0 < x < 6
            around = sum(image[c][y + i][x + j] for i in (-1, 0, 1) for j in (-1, 0, 1)) if inside else 0
            smooth = round(Fraction(around + 4 * image[c][y][x], 13)) if inside else image[c][y][x]
            other = {"Brightness": 0, "Color": grey[y][x], "Contrast": mean, "Sharpness": smooth}[name]
            exact = image[c][y][x] * factor + other * (1 - factor)
            assert ours[c][y][x] == math.floor(min(max(exact, 0), 255))


def test_auto_contrast_is_cut_exactly():
    """The lowest level becomes 0 and the highest 255, in whole numbers; a flat channel stays."""
    images = pictures(12, 12).numpy().astype(int)
    low, high = images.min((2, 3), keepdims=True), images.max((2, 3), keepdims=True)
    expected = np.where(high > low, (images - low) * 255 // np.maximum(high - low, 1), images)
    assert np.array_equal(operate("AutoContrast", 0.0, torch.from_numpy(images), USUAL).numpy(), expected)


@each_technique
@pytest.mark.parametrize("shape", SHAPES)
def test_a_policy_equals_torchvision_image_by_image(technique, shape):
    """Each operation of the policy is torchvision's, with the drawn parameters, on what the ones before it made of the image."""
    images, draws = pictures(*shape, num_images=60), draw(technique, 60)
    reach = WIDE if isinstance(technique, TrivialAugment) else USUAL
    before, exact = images, []
    for k in range(draws["operation"].shape[1]):
        after = levels(technique(images.float() / 255, {key: rows[:, : k + 1] for key, rows in draws.items()}))
        for i in range(60):
            name, magnitude = NAMES[draws["operation"][i, k]], draws["magnitude"][i, k].item()
            theirs = in_torchvision(name, torchvision_magnitude(name, magnitude, shape, reach), before[i])
            differing = differences(name, magnitude, shape, after[i], theirs)
            assert (differing <= 1).all(), name
            exact.append(not differing.any())
        before = after.byte()
    assert np.mean(exact) > 0.8
    assert not torch.equal(before, images)


@each_technique
def test_images_of_a_batch_differ_and_depend_on_their_own_row(technique):
    """One picture many times over comes back in several versions; an image alone, or elsewhere in the batch, is the same."""
    images, draws = pictures(32, 32, 2)[:1].repeat(32, 1, 1, 1) / 255, draw(technique, 32)
    changed = technique(images, draws)
    assert len({tuple(image.flatten().tolist()) for image in changed}) >= 12
    reverse = technique(images.flip(0), {key: rows.flip(0) for key, rows in draws.items()}).flip(0)
    assert torch.equal(changed, reverse)
    for i in (0, 5, 31):
        assert torch.equal(technique(images[i : i + 1], {key: rows[i : i + 1] for key, rows in draws.items()})[0], changed[i])


@pytest.mark.parametrize("reach", [USUAL, WIDE])
def test_selecting_from_whole_batches_equals_subsets(reach):
    """Computing every operation for every image and selecting, as a GPU does, gives what a CPU computes for the chosen ones."""
    images, draws = pictures(16, 17, 300) / 255, draw(TrivialAugment(), 300)
    changed = levels(apply_operations(images, draws, reach))
    for name, operation in OPERATIONS.items():
        chosen = draws["operation"][:, 0] == NAMES.index(name)
        whole = operation((images * 255).round(), draws["magnitude"][:, 0])
        assert torch.equal(whole[chosen].int(), changed[chosen])


@each_technique
@pytest.mark.parametrize("kind", ["black", "white", "grey", "one bright pixel", "between levels"])
def test_pixels_stay_in_range(technique, kind):
    """Flat, extreme and unrounded images give numbers in [0, 1], which are whole levels."""
    images = torch.full((200, 3, 8, 8), {"black": 0.0, "white": 1.0, "grey": 0.5}.get(kind, 0.0))
    if kind == "one bright pixel":
        images[:, :, 3, 4] = 1.0
    if kind == "between levels":
        images = torch.rand(200, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    changed = technique(images, draw(technique, 200))
    result = levels(changed)
    assert result.min() >= 0
    assert result.max() <= 255
    assert changed.dtype == images.dtype


def test_left_out_operations_change_nothing():
    """Pixels of 8 bits pass unchanged, to the bit, where no operation is applied."""
    images = pictures() / 255
    rest = {"operation": torch.zeros(8, 2, dtype=torch.long), "magnitude": torch.ones(8, 2)}
    assert torch.equal(AutoAugment()(images, rest), images)


def test_translations_count_in_pixels_or_shares():
    """The wide set moves by pixels, the usual one by shares of the side, cut to whole pixels; right and down are above 0."""
    image = torch.zeros(1, 3, 20, 40)
    image[:, :, 10, 20] = 1.0

    def place(name, magnitude, reach):
        draws = {"operation": torch.tensor([[NAMES.index(name)]]), "magnitude": torch.tensor([[magnitude]])}
        return apply_operations(image, draws, reach)[0, 0].nonzero().tolist()

    assert place("TranslateX", 3.9, WIDE) == [[10, 23]]
    assert place("TranslateY", -3.9, WIDE) == [[7, 20]]
    assert place("TranslateX", 0.13, USUAL) == [[10, 25]]
    assert place("TranslateY", -0.13, USUAL) == [[8, 20]]


@each_technique
def test_equal_generators_give_equal_draws(technique):
    """The draws are a function of the generator, whole numbers and finite ones, of shape N x K."""
    first, again, other = draw(technique), draw(technique), draw(technique, seed=1)
    assert set(first) == {"operation", "magnitude"}
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["operation"], other["operation"])
    assert first["operation"].shape == first["magnitude"].shape
    assert first["magnitude"].dtype == torch.float32


@pytest.mark.parametrize(("technique", "num_slots"), [(RandAugment(), 2), (RandAugment(num_ops=4), 4), (TrivialAugment(), 1)], ids=str)
def test_random_operations_are_even(technique, num_slots):
    """Each of the 14 operations comes as often in every place, whatever comes in the others."""
    operations = draw(technique, 14000)["operation"]
    assert operations.shape[1] == num_slots
    for k in range(num_slots):
        assert stats.chisquare(torch.bincount(operations[:, k], minlength=14)).pvalue > 0.001
    if num_slots > 1:
        pairs = torch.bincount(operations[:, 0] * 14 + operations[:, 1], minlength=196)
        assert stats.chisquare(pairs).pvalue > 0.001


@pytest.mark.parametrize("policy", POLICIES)
def test_learnt_operations_come_with_their_chances(policy):
    """How often an operation comes in either place follows from the 25 pairs and their chances, and so does how often both come."""
    num_images = 20000
    operations = draw(AutoAugment(policy=policy), num_images)["operation"]
    for slot in range(2):
        expected = Counter({"Identity": 1.0})
        for pair in POLICIES[policy]:
            name, chance, _ = pair[slot]
            expected[name] += chance / 25
            expected["Identity"] -= chance / 25
        result = torch.bincount(operations[:, slot], minlength=len(NAMES)) / num_images
        np.testing.assert_allclose(result, [expected[name] for name in NAMES], atol=0.012)
    both = np.mean([one[1] * other[1] for one, other in POLICIES[policy]])
    assert (operations > 0).all(1).float().mean().item() == pytest.approx(both, abs=0.015)


def test_learnt_operations_keep_together():
    """The second operation is the partner of the first, at its own magnitude."""
    draws = draw(AutoAugment(), 5000)
    table = magnitude_table(USUAL, 10)
    allowed = {
        tuple((NAMES.index(name), round(table[NAMES.index(name), level].item(), 5)) for name, _, level in pair)
        for pair in POLICIES["cifar10"]
    }
    rows = zip(draws["operation"].tolist(), draws["magnitude"].abs().tolist(), strict=True)
    result = {tuple(zip(operation, (round(m, 5) for m in size), strict=True)) for operation, size in rows if min(operation) > 0}
    assert result <= allowed
    assert len(result) >= 20


@each_technique
def test_signs_are_even_where_there_are_two(technique):
    """Half of the shears, translations, rotations and blends go either way; the other operations have one direction."""
    draws = draw(technique, 20000)
    for name in set(NAMES) - {"Identity"}:
        sizes = draws["magnitude"][draws["operation"] == NAMES.index(name)]
        sizes = sizes[sizes != 0]
        if name in (*GEOMETRIC, "Brightness", "Color", "Contrast", "Sharpness"):
            assert len(sizes) == 0 or (sizes < 0).float().mean().item() == pytest.approx(0.5, abs=0.12)
        else:
            assert (sizes > 0).all()


def test_random_magnitudes():
    """RandAugment keeps to one bin; TrivialAugment draws them all, evenly."""
    draws = draw(RandAugment(magnitude=5, num_bins=11), 500)
    expected = magnitude_table(USUAL, 11)[:, 5]
    assert torch.equal(draws["magnitude"].abs(), expected[draws["operation"]])
    draws = draw(TrivialAugment(), 40000)
    angles = draws["magnitude"][draws["operation"] == NAMES.index("Rotate")].abs()
    assert stats.chisquare(torch.bincount((angles / 4.5).round().long(), minlength=31)).pvalue > 0.001


def test_one_operation_more_keeps_the_first_ones():
    """Two operations are the first two of three, and another magnitude keeps operations and signs, so that arms stay paired."""
    two, three, far = draw(RandAugment()), draw(RandAugment(num_ops=3)), draw(RandAugment(magnitude=20))
    assert all(torch.equal(three[key][:, :2], two[key]) for key in two)
    assert torch.equal(far["operation"], two["operation"])
    assert torch.equal(far["magnitude"].sign(), two["magnitude"].sign())


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"name": "rand_augment", "magnitude": 31}, "at.magnitude"),
        ({"name": "rand_augment", "magnitude": -1}, "at.magnitude"),
        ({"name": "rand_augment", "num_ops": 0}, "at.num_ops"),
        ({"name": "rand_augment", "num_bins": 1}, "at.num_bins"),
        ({"name": "trivial_augment", "num_bins": 31.5}, "at.num_bins"),
        ({"name": "auto_augment", "policy": "cifar100"}, "at.policy"),
    ],
)
def test_a_value_out_of_range_is_an_error_with_its_place(spec, path):
    """A wrong setting is told with its dotted path and what was expected."""
    with pytest.raises(ConfigError) as caught:
        make("augmentations", spec, "at")
    assert caught.value.path == path
    assert "expected" in str(caught.value)


def test_no_magnitude_leaves_the_image():
    """Shears, shifts, rotations and blends of magnitude 0 return the pixels to the bit."""
    images = pictures(32, 32)
    for name in (*GEOMETRIC, "Brightness", "Color", "Contrast", "Sharpness"):
        assert torch.equal(operate(name, 0.0, images, MaxMagnitudes(0, 0, 0, 0, 0)), images.int()), name
