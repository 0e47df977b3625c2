"""Models by timm's names: their initial weights, and what is told of names and files that do not fit."""

import hashlib
import json
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file

from ablation.errors import ConfigError, DataError
from ablation.system.digests import file_digest
from ablation.techniques import models
from ablation.techniques.classifiers import Linear
from ablation.techniques.models import classifier_of, initialise_classifier, num_parameters, shipped_names
from ablation.techniques.technique import make

SMALL = {"name": "test_efficientnet", "image_size": 32}


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def differing(one, other):
    return {name for name in one if one[name].shape != other[name].shape or not torch.equal(one[name], other[name])}


def test_initial_weights_are_a_function_of_the_seed():
    """Equal seeds give equal weights, whatever was drawn before, and leave the global generator as it was."""
    model = make("models", SMALL)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = weights(model(10, 0))
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(3)
    assert differing(first, weights(model(10, 0))) == set()
    other = differing(first, weights(model(10, 1)))
    assert {"conv_stem.weight", "classifier.weight", "classifier.bias"} <= other


@pytest.mark.parametrize("change", [{"num_classes": 7}, {"drop": 0.3}, {"drop_path": 0.3}])
def test_the_backbone_does_not_depend_on_the_rest(change):
    """Another number of classes, dropout or drop path leaves the initial backbone as it is."""
    settings = {name: value for name, value in change.items() if name != "num_classes"}
    first, other = make("models", SMALL)(10, 0), make("models", SMALL | settings)(change.get("num_classes", 10), 0)
    assert differing(weights(first), weights(other)) <= {"classifier.weight", "classifier.bias"}


def test_a_new_classifier_is_drawn_by_its_purpose():
    """Another purpose gives another classifier, the same purpose the same one, and the backbone stays."""
    model = make("models", SMALL)(10, 0)
    first = weights(model)
    initialise_classifier(model, 0, "init/20")
    second = weights(model)
    assert differing(first, second) == {"classifier.weight", "classifier.bias"}
    initialise_classifier(model, 0, "init")
    assert differing(first, weights(model)) == set()


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_vit", "test_convnext"])
def test_every_kind_of_model_gives_logits(name):
    """Convolutional nets and transformers take the image size that the file names and give a logit per class."""
    model = make("models", {"name": name, "image_size": 64})(7, 0).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 7)
    assert any(parameter.shape[0] == 7 for parameter in classifier_of(model).parameters())


def test_known_names_are_timms():
    """The names read from timm's source are those that it registers."""
    assert set(timm.list_models()) <= shipped_names()


@pytest.mark.parametrize(("name", "hint"), [("efficientnet_b00", "efficientnet_b0"), ("resnet101dd", "resnet101d")])
def test_an_unknown_model_is_told_with_the_nearest(name, hint):
    """A name that timm does not know is an error in the file's words."""
    with pytest.raises(ConfigError, match=rf"unknown model '{name}'.*timm.list_models.*Did you mean '{hint}'"):
        make("models", name)


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"image_size": 4}, "image_size"),
        ({"drop": 1.0}, "drop"),
        ({"drop_path": -0.1}, "drop_path"),
        ({"weights": "model.pth"}, "weights"),
        ({"depth": 3}, "depth"),
    ],
)
def test_wrong_settings_are_told_with_their_place(settings, place):
    """Sizes, rates, pickled weights and unknown fields are refused under the field's name."""
    with pytest.raises(ConfigError) as caught:
        make("models", SMALL | settings, "base.model")
    assert caught.value.path == f"base.model.{place}"


def test_weights_come_from_a_file(tmp_path):
    """A file of weights replaces the initial backbone, and the classifier is drawn by the seed all the same."""
    source = make("models", SMALL)(1000, 3)
    save_file(weights(source), tmp_path / "w.safetensors")
    model = make("models", SMALL | {"weights": "w.safetensors"})
    loaded, plain = weights(model(10, 0, tmp_path / "w.safetensors")), weights(make("models", SMALL)(10, 0))
    backbone = {name for name in loaded if not name.startswith("classifier")}
    assert not differing({name: loaded[name] for name in backbone}, weights(source))
    assert torch.equal(loaded["classifier.weight"], plain["classifier.weight"])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"conv_stem.weight": None}, "it has no conv_stem.weight"),
        ({"blocks.9.conv.weight": torch.ones(2)}, "it has blocks.9.conv.weight"),
        ({"conv_stem.weight": torch.ones(2)}, "Error"),
        (None, ""),
    ],
)
def test_weights_that_do_not_fit_are_told(tmp_path, change, problem):
    """A tensor too few, too many or of another shape, or a file of something else, is a DataError with file, model and problem."""
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"nothing")
    if change is not None:
        content = weights(make("models", SMALL)(10, 0)) | change
        save_file({name: tensor for name, tensor in content.items() if tensor is not None}, path)
    with pytest.raises(DataError, match=rf"model.weights: .*w.safetensors does not fit test_efficientnet \(.*{problem}"):
        make("models", SMALL)(10, 0, path)


def test_a_model_with_two_classifiers_is_refused():
    """A distilled transformer, whose head is not one layer, is told in the file's words."""
    with pytest.raises(ConfigError, match=r"model: .* has several classifiers; expected a model with one"):
        make("models", "deit_tiny_distilled_patch16_224")(10, 0)


def test_weights_that_cannot_be_had_are_told(monkeypatch):
    """Without the hub, pretrained weights are a DataError with the ways out, in one line."""

    def offline(*_args, **_kwargs):
        raise OSError("no route to host\nsecond line")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        DataError, match=r"model.pretrained: .*no route to host\); connect once .*model.weights.*pretrained=false$"
    ) as caught:
        make("models", SMALL | {"pretrained": True})(10, 0)
    assert "\n" not in str(caught.value)


def test_normalisation_is_the_models_own():
    """Mean and deviation are those of timm's configuration."""
    config = timm.get_pretrained_cfg("test_efficientnet")
    assert make("models", SMALL).normalisation == (tuple(config.mean), tuple(config.std))
    assert make("models", "efficientnet_b0").normalisation == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_parameters_are_counted():
    """The count is that of the model's own tensors."""
    model = make("models", SMALL)
    assert num_parameters(model, Linear(), "all", 10) == sum(parameter.numel() for parameter in model(10, 0).parameters())
    assert num_parameters(model, Linear(), "head", 10) == sum(parameter.numel() for parameter in model(10, 0).get_classifier().parameters())


def test_a_count_is_kept_for_models_that_ship(tmp_path, monkeypatch):
    """The count of a model of timm's is the same from the disk, by every setting of the model, and no class of a user is in it."""
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    variants = [make("models", SMALL), make("models", SMALL | {"image_size": 24}), make("models", SMALL | {"pretrained": True})]

    def counts():
        num_parameters.cache_clear()
        return [num_parameters(model, Linear(), "all", num_classes) for model in variants for num_classes in (10, 100)]

    found = counts()
    kept = json.loads((tmp_path / "cache" / "parameters.json").read_text())["known"]
    assert set(kept.values()) == set(found)
    assert len(kept) == 4  # pretrained or not, a model has as many
    monkeypatch.setattr(models, "_count_parameters", None)
    assert counts() == found

    class Own(Linear):
        """A classifier of a user."""

    monkeypatch.setattr(models, "_count_parameters", lambda *_: 7)
    assert num_parameters(variants[0], Own(), "all", 10) == 7
    assert len(json.loads((tmp_path / "cache" / "parameters.json").read_text())["known"]) == 4
    num_parameters.cache_clear()


def test_a_count_is_not_kept_where_another_model_has_the_name(tmp_path, monkeypatch):
    """A model that other code registered under a name of timm's is counted itself, and nothing of it is kept."""
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))
    model = make("models", SMALL)
    num_parameters.cache_clear()
    shipped = num_parameters(model, Linear(), "all", 10)
    kept = (tmp_path / "cache" / "parameters.json").read_text()

    def own(**options):
        return timm.create_model("test_resnet", **options)

    num_parameters.cache_clear()
    monkeypatch.setitem(sys.modules["timm.models._registry"]._model_entrypoints, SMALL["name"], own)
    assert num_parameters(model, Linear(), "all", 10) == sum(parameter.numel() for parameter in model(10, 0).parameters()) != shipped
    assert (tmp_path / "cache" / "parameters.json").read_text() == kept
    num_parameters.cache_clear()


def test_digests_are_sha256(tmp_path):
    """A file's digest is that of its bytes."""
    (tmp_path / "file").write_bytes(b"weights")
    assert file_digest(tmp_path / "file") == hashlib.sha256(b"weights").hexdigest()
