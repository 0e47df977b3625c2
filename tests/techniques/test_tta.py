"""Test-time augmentation. Shapes: V views, B batch, C classes or channels, H height, W width."""

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from ablation.techniques.technique import make
from ablation.techniques.tta import IDENTITY, Flips, HFlip, NoTTA, Rotate, Scale, VFlip, View

IMAGES = torch.rand(2, 3, 9, 14, generator=torch.Generator().manual_seed(0))


def logits(num_views=3, num_images=50, scale=3.0):
    return scale * torch.randn(num_views, num_images, 4, generator=torch.Generator().manual_seed(1))


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize(
    ("technique", "kinds"),
    [
        (NoTTA(), [("identity", 0.0)]),
        (HFlip(), [("identity", 0.0), ("hflip", 0.0)]),
        (VFlip(), [("identity", 0.0), ("vflip", 0.0)]),
        (Flips(), [("identity", 0.0), ("hflip", 0.0), ("vflip", 0.0), ("both", 0.0)]),
        (Rotate(degrees=10), [("identity", 0.0), ("rotate", -10.0), ("rotate", 10.0)]),
        (Scale(), [("identity", 0.0), ("scale", 0.9), ("scale", 1.1)]),
    ],
)
def test_views(technique, kinds):
    """Each technique's views are the image itself first and then its variants, all different."""
    assert [(view.kind, view.amount) for view in technique.views()] == kinds
    assert len(set(technique.views())) == len(kinds)


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (IDENTITY, lambda x: x),
        (View("hflip"), tv.horizontal_flip),
        (View("vflip"), tv.vertical_flip),
        (View("both"), lambda x: tv.vertical_flip(tv.horizontal_flip(x))),
        (View("rotate", 15.0), lambda x: tv.affine(x, 15.0, [0, 0], 1.0, [0.0, 0.0], InterpolationMode.BILINEAR)),
        (View("rotate", -15.0), lambda x: tv.affine(x, -15.0, [0, 0], 1.0, [0.0, 0.0], InterpolationMode.BILINEAR)),
        (View("scale", 0.9), lambda x: tv.affine(x, 0.0, [0, 0], 0.9, [0.0, 0.0], InterpolationMode.BILINEAR)),
        (View("scale", 1.1), lambda x: tv.affine(x, 0.0, [0, 0], 1.1, [0.0, 0.0], InterpolationMode.BILINEAR)),
    ],
)
def test_a_view_equals_torchvision(view, expected):
    """Every view is what torchvision computes, on images that are not square."""
    torch.testing.assert_close(view(IMAGES), expected(IMAGES), atol=1e-5, rtol=1e-5)
    assert torch.equal(view(IMAGES), IMAGES) == (view == IDENTITY)


def test_without_tta_the_logits_are_unchanged():
    """One view's logits come back bit by bit."""
    assert torch.equal(NoTTA().combine(logits(1)), logits(1)[0])


@pytest.mark.parametrize("name", ["hflip", "vflip", "flips", "rotate", "scale"])
def test_averages_equal_numpy(name):
    """The scores' softmax is the softmax of the mean logits, or the mean of the probabilities."""
    z = logits(len(make("tta", name).views())).double().numpy()
    result = {
        average: softmax(make("tta", {"name": name, "average": average}).combine(torch.tensor(z)).numpy())
        for average in ("logits", "probabilities")
    }
    np.testing.assert_allclose(result["logits"], softmax(z.mean(0)), rtol=1e-9)
    np.testing.assert_allclose(result["probabilities"], softmax(z).mean(0), rtol=1e-9)
    assert not np.allclose(result["logits"], result["probabilities"], atol=1e-3)


@pytest.mark.parametrize("num_views", [2, 3, 4])
def test_votes_equal_a_count(num_views):
    """The decision has most votes, ties broken by the mean probability, and the softmax is nearly the vote share."""
    z = logits(num_views, 400).double().numpy()
    scores = HFlip(average="vote").combine(torch.tensor(z).float()).numpy()
    for image in range(400):
        counts = np.bincount(z[:, image].argmax(1), minlength=4)
        leaders = np.flatnonzero(counts == counts.max())
        mean = softmax(z[:, image]).mean(0)
        assert scores[image].argmax() == leaders[mean[leaders].argmax()]
        np.testing.assert_allclose(softmax(scores[image]), counts / num_views, atol=0.006)


@pytest.mark.parametrize("average", ["logits", "probabilities", "vote"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_extreme_logits_stay_finite(average, dtype):
    """Logits of +-80 give finite scores in float32."""
    z = torch.tensor([[[80.0, -80.0, 0.0]], [[-80.0, 80.0, 0.0]]], dtype=dtype)
    scores = HFlip(average=average).combine(z)
    assert scores.dtype == torch.float32
    assert torch.isfinite(scores).all()


def test_equal_views_leave_the_probabilities():
    """Views that agree combine to what each of them says."""
    z = logits(1).repeat(4, 1, 1)
    for average in ("logits", "probabilities"):
        torch.testing.assert_close(Flips(average=average).combine(z).softmax(1), z[0].softmax(1))
