"""Augmentations. Shapes: B or N images, C channels, H height, W width."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from ablation.errors import ConfigError
from ablation.study.resolving import load_study
from ablation.techniques.augmentations import Affine, ColorJitter, Crop, Cutout, Erase, HFlip, Resize, VFlip, normal_noise
from ablation.techniques.technique import family, make
from tests.tiny import write

SHAPES = [(8, 8), (9, 14)]


def pictures(height=9, width=14, num_images=16):
    return torch.rand(num_images, 3, height, width, generator=torch.Generator().manual_seed(7))


def draw(technique, num_images=16, seed=0):
    return technique.draw(torch.Generator().manual_seed(seed), num_images)


@pytest.mark.parametrize(("kind", "expected"), [(HFlip, tv.horizontal_flip), (VFlip, tv.vertical_flip)])
def test_flips_equal_torchvision(kind, expected):
    """Exactly the images drawn are flipped, as torchvision flips them."""
    images, draws = pictures(), draw(kind())
    flipped = kind()(images, draws)
    for i, is_flipped in enumerate(draws["flipped"].tolist()):
        assert torch.equal(flipped[i], expected(images[i]) if is_flipped else images[i])
    assert 0 < draws["flipped"].sum() < 16


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (0.3, 0.3), (1.0, 1.0)])
@pytest.mark.parametrize(("name", "field"), [("hflip", "flipped"), ("vflip", "flipped"), ("erase", "erased")])
def test_chances(name, field, probability, share):
    """An augmentation with a chance is applied that often, and with 0 and 1 never and always."""
    draws = draw(make("augmentations", {"name": name, "probability": probability}), 4000)
    assert draws[field].float().mean().item() == pytest.approx(share, abs=0.03 * (0 < share < 1))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_crop_equals_torchvision(shape, padding):
    """Each image's window is torchvision's pad and crop."""
    technique, images = Crop(padding=padding), pictures(*shape)
    draws = draw(technique)
    cropped = technique(images, draws)
    for i in range(16):
        padded = tv.pad(images[i], [padding] * 4)
        assert torch.equal(cropped[i], tv.crop(padded, int(draws["top"][i]), int(draws["left"][i]), *shape))


def test_crop_reaches_every_corner():
    """Rows and columns run from 0 to twice the padding, each equally often."""
    draws = draw(Crop(padding=2), 5000)
    for side in ("top", "left"):
        torch.testing.assert_close(torch.bincount(draws[side]) / 5000, torch.full((5,), 0.2), atol=0.03, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize(
    "settings",
    [
        {"degrees": 15},
        {"degrees": 180},
        {"translate": [0.3, 0.1]},
        {"scale": [0.5, 2.0]},
        {"shear": 30},
        {"degrees": 40, "translate": [0.2, 0.2], "scale": [0.8, 1.2], "shear": 10},
    ],
    ids=str,
)
def test_affine_equals_torchvision(shape, interpolation, settings):
    """Each image is torchvision's affine of its own parameters, square or not."""
    technique, images = make("augmentations", {"name": "affine", "interpolation": interpolation, **settings}), pictures(*shape)
    draws = draw(technique)
    changed = technique(images, draws)
    differing = 0
    for i in range(16):
        x, y = draws["translate"][i].tolist()
        expected = tv.affine(
            images[i],
            draws["angle"][i].item(),
            [round(x * shape[1]), round(y * shape[0])],
            draws["scale"][i].item(),
            [draws["shear"][i].item(), 0.0],
            InterpolationMode(interpolation),
        )
        differing += (~torch.isclose(changed[i], expected, atol=1e-4)).any(0).sum().item()
    # The nearest pixel may be the other one where a source lies half-way between two.
    assert differing <= (0 if interpolation == "bilinear" else 0.002 * 16 * shape[0] * shape[1])
    assert not torch.equal(changed, images)


def test_affine_parameters_cover_their_ranges():
    """Angles, shears, shifts and scales are uniform over what the settings allow."""
    draws = draw(Affine(degrees=15, translate=(0.1, 0.2), scale=(0.8, 1.2), shear=5), 3000)
    columns = {
        "angle": (draws["angle"], -15, 15),
        "shear": (draws["shear"], -5, 5),
        "x": (draws["translate"][:, 0], -0.1, 0.1),
        "y": (draws["translate"][:, 1], -0.2, 0.2),
        "scale": (draws["scale"], 0.8, 1.2),
    }
    for name, (values, low, high) in columns.items():
        assert stats.kstest(values.numpy(), stats.uniform(low, high - low).cdf).pvalue > 0.001, name
    assert np.abs(np.corrcoef([values.numpy() for values, _, _ in columns.values()]) - np.eye(5)).max() < 0.08


def test_affine_at_rest_changes_nothing():
    """No angle, shift, scale or shear returns the pixels."""
    for interpolation in ("nearest", "bilinear"):
        torch.testing.assert_close(Affine(interpolation=interpolation)(pictures(), draw(Affine())), pictures(), atol=1e-5, rtol=0)


def test_one_setting_does_not_shift_another_s_draws():
    """Adding a shear keeps every angle and scale, so that two arms stay paired."""
    with_shear, without = draw(Affine(degrees=15, scale=(0.8, 1.2), shear=9)), draw(Affine(degrees=15, scale=(0.8, 1.2)))
    assert torch.equal(with_shear["angle"], without["angle"])
    assert torch.equal(with_shear["scale"], without["scale"])


@pytest.mark.parametrize("name", ["hflip", "vflip", "crop", "affine", "erase", "color_jitter", "cutout"])
def test_images_of_a_batch_differ(name):
    """One picture many times over comes back in several versions, each of which depends on its own row alone."""
    settings = {"affine": {"degrees": 30}, "erase": {"probability": 1.0}, "cutout": {"size": 5}}.get(name, {})
    technique = make("augmentations", {"name": name, **settings})
    images, draws = pictures(12, 12, 1).repeat(16, 1, 1, 1), draw(technique)
    changed = technique(images, draws)
    versions = {tuple(image.flatten().tolist()) for image in changed}
    assert len(versions) >= (2 if "flip" in name else 8)
    alone = technique(images[5:6], {key: rows[5:6] for key, rows in draws.items()})
    assert torch.equal(alone[0], changed[5])


@pytest.mark.parametrize("shape", [(32, 32), (24, 40)])
@pytest.mark.parametrize("values", ["random", "zero"])
def test_erase_replaces_the_box(shape, values):
    """The pixels that change are one box per image of the drawn size and place, computed in plain Python."""
    technique = Erase(probability=0.7, values=values)
    images, draws = pictures(*shape) + 10, draw(technique)
    changed = technique(images, draws)
    height, width = shape
    for i in range(16):
        side = math.sqrt(height * width)
        rows, columns = round(draws["height"][i].item() * side), round(draws["width"][i].item() * side)
        top = int(draws["top"][i].item() * (height - rows + 1))
        left = int(draws["left"][i].item() * (width - columns + 1))
        box = torch.zeros(shape, dtype=torch.bool)
        box[top : top + rows, left : left + columns] = bool(draws["erased"][i])
        assert torch.equal((changed[i] != images[i]).all(0), box)
        assert torch.equal((changed[i] != images[i]).any(0), box)
        assert values == "random" or not changed[i][:, box].any()


def test_erase_draws_areas_and_ratios():
    """Areas are uniform and ratios log-uniform over what the settings allow."""
    draws = draw(Erase(area=(0.02, 0.2), ratio=(0.3, 3.3)), 3000)
    areas, ratios = (draws["height"] * draws["width"]).numpy(), (draws["height"] / draws["width"]).numpy()
    assert stats.kstest(areas, stats.uniform(0.02, 0.18).cdf).pvalue > 0.001
    assert stats.kstest(np.log(ratios), stats.uniform(math.log(0.3), math.log(11)).cdf).pvalue > 0.001


def test_a_box_longer_than_the_image_is_cut():
    """The largest area in a flat image erases whole rows and nothing fails."""
    technique = Erase(probability=1.0, area=(1.0, 1.0), ratio=(4.0, 4.0), values="zero")
    changed = technique(pictures(8, 8), draw(technique))
    assert torch.equal((changed == 0).all(1).sum((1, 2)), torch.full((16,), 8 * 4))


def test_noise_is_normal_and_independent():
    """Noise passes the test for the normal distribution, over positions and over seeds, and neighbours do not correlate."""
    positions, seeds = torch.arange(3 * 64 * 64, dtype=torch.int32), draw(Erase(), 64)["seed"]
    noise = normal_noise(seeds[:, None], positions).numpy()
    assert np.isfinite(noise).all()
    assert stats.kstest(noise[0], "norm").pvalue > 0.001
    assert stats.kstest(noise[:, :100].flatten(), "norm").pvalue > 0.001
    for lag in (1, 64, 64 * 64):
        assert abs(np.corrcoef(noise[:, lag:].flatten(), noise[:, :-lag].flatten())[0, 1]) < 0.005
    between = np.corrcoef(noise)
    assert np.abs(between - np.eye(64)).max() < 0.05


def test_noise_is_the_hash_in_plain_python():
    """Every number is the inverse normal of a 32-bit hash of its position and seed, wrapping and signs included."""

    def hash_bits(x):
        x = (x ^ (x >> 16)) * 0x7FEB352D % 2**32
        x = (x ^ (x >> 15)) * 0x846CA68B % 2**32
        return x ^ (x >> 16)

    for seed in (0, 1, -1, 2**31 - 1, -(2**31)):
        expected = [stats.norm.ppf(((hash_bits(hash_bits(p) ^ seed % 2**32) >> 9) + 0.5) / 2**23) for p in range(200)]
        result = normal_noise(torch.tensor(seed, dtype=torch.int32), torch.arange(200, dtype=torch.int32))
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_erased_pixels_hold_the_noise_of_their_position():
    """What a CPU computes for the boxes alone is what a GPU computes for the whole image."""
    technique, images = Erase(probability=1.0), pictures(16, 16)
    draws = draw(technique)
    changed = technique(images, draws)
    noise = normal_noise(draws["seed"][:, None], torch.arange(images[0].numel(), dtype=torch.int32)).view(images.shape)
    assert torch.equal(torch.where(changed != images, noise, images), changed)


@pytest.mark.parametrize(("size", "source"), [(24, (8, 8)), (8, (24, 24)), (16, (9, 14))])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
def test_resize_equals_pillow(size, source, interpolation):
    """Enlarging and shrinking equal Pillow's, up to its rounding to whole levels."""
    # Away from the ends of the range, since Pillow clips after each of its two passes.
    levels = (pictures(*source, num_images=2) * 100 + 80).round().byte()
    resized = Resize(interpolation=interpolation).resize(levels.float() / 255, size)
    for i in range(2):
        image = Image.fromarray(levels[i].permute(1, 2, 0).numpy())
        expected = np.asarray(image.resize((size, size), getattr(Image.Resampling, interpolation.upper())), dtype=np.float32) / 255
        np.testing.assert_allclose(resized[i].permute(1, 2, 0).numpy(), expected, atol=1.5 / 255)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"augment": ["resize", "hflip", "resize"]}, "found 2 of resize; expected one"),
        ({"augment": ["hflip", "resize"], "data": {"name": "folder", "root": "images"}}, "resize changes nothing: images of folder get"),
    ],
)
def test_a_resize_that_could_not_act_is_refused(tmp_path, settings, words):
    """A second one, and one for images that are decoded at the model's size."""
    with pytest.raises(ConfigError, match=words) as error:
        load_study(write(tmp_path, base=settings))
    assert error.value.path == "base.augment"
    load_study(write(tmp_path, base={"augment": ["resize", "hflip"]}))
    load_study(write(tmp_path, base={"augment": ["resize", "hflip"], "data": {"name": "npz", "file": "images.npz"}}))  # at their own size


def test_resize_keeps_what_has_the_size():
    """Images of the model's size are returned as they are, and pixels never leave [0, 1]."""
    images = pictures(8, 8).round()
    assert Resize().resize(images, 8) is images
    enlarged = Resize().resize(images, 32)
    assert enlarged.min() == 0
    assert enlarged.max() == 1


def test_where_each_augmentation_stands():
    """Geometry and colours come before the resizing, erasing and cutting out after the normalisation."""
    pixels = ("hflip", "vflip", "crop", "affine", "auto_augment", "rand_augment", "trivial_augment", "color_jitter")
    places = {name: make("augmentations", name).works_on for name in family("augmentations").names}
    assert places == {**dict.fromkeys(pixels, "pixels"), "resize": "resize", "erase": "input", "cutout": "input"}


JITTERS = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("strength", [0.4, 1.5])
def test_color_jitter_equals_torchvision(shape, strength):
    """Each image is torchvision's brightness, contrast and saturation by its own factors in its own order."""
    technique, images = ColorJitter(brightness=strength, contrast=strength, saturation=strength), pictures(*shape)
    draws = draw(technique)
    changed = technique(images, draws)
    for i in range(16):
        expected = images[i]
        for which in draws["order"][i].tolist():
            expected = JITTERS[which](expected, draws["factor"][i, which].item())
        torch.testing.assert_close(changed[i], expected, atol=1e-5, rtol=0)
    assert not torch.isclose(changed, images, atol=1e-3).all(dim=(1, 2, 3)).any()


def test_color_jitter_draws_factors_and_orders_evenly():
    """Factors are uniform from 1 - x, or 0, to 1 + x, and the six orders come equally often."""
    draws = draw(ColorJitter(brightness=0.4, contrast=0.2, saturation=1.5), 6000)
    for column, low, high in zip(draws["factor"].T, (0.6, 0.8, 0.0), (1.4, 1.2, 2.5), strict=True):
        assert stats.kstest(column.numpy(), stats.uniform(low, high - low).cdf).pvalue > 0.001
    orders = np.unique(draws["order"].numpy(), axis=0, return_counts=True)
    assert len(orders[0]) == 6
    assert stats.chisquare(orders[1]).pvalue > 0.001


def test_color_jitter_of_no_strength_changes_nothing():
    """Strengths of 0 return the pixels, and one setting does not shift another's draws."""
    still, bright = ColorJitter(brightness=0, contrast=0, saturation=0), ColorJitter(brightness=0.9)
    torch.testing.assert_close(still(pictures(), draw(still)), pictures(), atol=1e-6, rtol=0)
    assert torch.equal(draw(bright)["factor"][:, 1:], draw(ColorJitter())["factor"][:, 1:])
    assert torch.equal(draw(bright)["order"], draw(still)["order"])


@pytest.mark.parametrize("shape", [(32, 32), (24, 40), (8, 8)])
@pytest.mark.parametrize("size", [1, 2, 5, 16])
def test_cutout_clears_the_square(shape, size):
    """The pixels that become 0 are the square about the drawn middle, cut at the border, and no others change."""
    technique, images = Cutout(size=size), pictures(*shape) + 10
    draws = draw(technique)
    changed = technique(images, draws)
    for i in range(16):
        top, left = (math.floor(draws[axis][i].item() * side) - size // 2 for axis, side in zip(("row", "column"), shape, strict=True))
        expected = images[i].clone()
        expected[:, max(top, 0) : top + size, max(left, 0) : left + size] = 0
        assert torch.equal(changed[i], expected)
        assert (changed[i] == 0).any()


def test_cutout_reaches_the_rim():
    """Middles are uniform over the image, the last pixel included, so that the rim is cleared too."""
    technique = Cutout(size=4)
    changed = technique(torch.ones(8000, 1, 8, 8), draw(technique, 8000))
    cleared = (changed == 0).double().mean(0)[0]
    along = torch.tensor([3, 4, 4, 4, 4, 4, 3, 2]).double() / 8  # how many of the 8 middles clear each place of an axis
    torch.testing.assert_close(cleared, along[:, None] * along, atol=0.025, rtol=0)
    assert (technique(torch.ones(1, 1, 8, 8), {"row": torch.ones(1), "column": torch.ones(1)}) == 0).sum() == 9


def test_augmentations_of_the_input_keep_its_dtype():
    """An input in half precision stays so."""
    for technique in (Cutout(), Erase(probability=1.0)):
        assert technique(pictures().half(), draw(technique)).dtype == torch.float16


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"name": "cutout", "size": 0}, "at.size"),
        ({"name": "color_jitter", "hue": 0.1}, "at.hue"),
        ({"name": "color_jitter", "contrast": -0.1}, "at.contrast"),
    ],
)
def test_wrong_settings_are_told_with_their_place(spec, path):
    """A wrong value or an unknown field is told with its dotted path and what was expected."""
    with pytest.raises(ConfigError) as caught:
        make("augmentations", spec, "at")
    assert caught.value.path == path
    assert "expected" in str(caught.value)
