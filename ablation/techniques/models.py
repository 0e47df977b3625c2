"""Models: every classifier that timm knows, by timm's name.

timm takes many seconds to import, so it is imported where a model is made; a plan that needs none stays quick.
"""

import importlib.util
import re
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import torch
from pydantic import Field, field_validator
from safetensors import safe_open
from torch import nn

from ablation.errors import ConfigError, DataError, nearest
from ablation.system.digests import digest
from ablation.system.kept import kept
from ablation.system.randomness import key
from ablation.techniques.convolutions import trim
from ablation.techniques.technique import Technique, dump

Rate = Annotated[float, Field(ge=0, lt=1)]
CIFAR_RESNETS = ("resnet20", "resnet32", "resnet44", "resnet56")  # what cifar_resnet adds to timm's models


class TimmModel(Technique):
    """A timm model with a new classifier of as many outputs as there are classes.

    Its initial weights are a function of the seed alone: the backbone's of (seed, "init"), each layer of the classifier's of
    (seed, "init", its name), so that another number of classes or another classifier leaves the backbone as it is.
    """

    name: str
    pretrained: bool = False  # from the hub, by timm's name
    weights: str = "none"  # a .safetensors file under timm's names, instead of the hub
    image_size: Annotated[int, Field(ge=8, le=2048)] = 224  # side of the square that the model sees, in pixels
    drop: Rate = 0.0
    drop_path: Rate = 0.0

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name.partition(".")[0] not in shipped_names() and not _is_registered(name):
            known = shipped_names()
            raise ConfigError("name", f"unknown model {name!r}; expected a name that timm.list_models() gives.{nearest(name, known)}")
        return name

    @field_validator("weights")
    @classmethod
    def _check_weights(cls, weights: str) -> str:
        if weights != "none" and not weights.endswith(".safetensors"):
            raise ConfigError("weights", f"found {weights!r}; expected a .safetensors file (pickled weights are not read)")
        return weights

    def __call__(self, num_classes: int, seed: int, weights_file: Path | None = None, classifier: Any = None) -> nn.Module:
        """The model in float32 on the CPU, its last layer being `classifier`'s (by default timm's own, a linear one).

        `weights_file` is `weights` made absolute. Raises DataError if the weights cannot be loaded.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key(seed, "init"))
            model = self._create(num_classes, weights_file)
            if classifier is not None:
                put_classifier(model, classifier)
            initialise_classifier(model, seed, "init")
        return model

    def _create(self, num_classes: int, weights_file: Path | None) -> nn.Module:
        timm = registry()
        options: dict[str, Any] = {"pretrained": self.pretrained}
        rates = {"drop_rate": self.drop, "drop_path_rate": self.drop_path}
        options |= {name: rate for name, rate in rates.items() if rate}  # not every model takes them
        if timm.get_pretrained_cfg(self.name, allow_unregistered=True).fixed_input_size:
            options["img_size"] = self.image_size
        if weights_file is not None:  # timm leaves the file's classifier out where it has another number of classes
            options |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(weights_file)}, "num_classes": num_classes}
        try:
            model: nn.Module = timm.create_model(self.name, **options)
            if weights_file is not None:
                _check_names(model, weights_file)
            else:  # made with timm's own number of classes, so that the backbone's draws do not depend on ours
                model.reset_classifier(num_classes)  # type: ignore[operator]
            model = trim(model)
        except Exception as error:
            if weights_file is not None:
                problem = f"{weights_file} does not fit {self.name} ({_first_line(error)})"
                raise DataError(f"model.weights: {problem}; expected its weights under timm's names") from error
            if self.pretrained:
                raise DataError(
                    f"model.pretrained: the weights of {self.name} could not be loaded from the hub ({_first_line(error)}); "
                    "connect once so that they are cached, or name a file by model.weights, or set model.pretrained=false"
                ) from error
            raise ConfigError("model", f"{self.name} could not be made: {_first_line(error)}") from error
        if self.drop_path and not _drops_paths(model):
            raise ConfigError("model.drop_path", f"found {self.drop_path:g}, but {self.name} has no paths that it drops; expected 0")
        return model

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation per channel, of pixels in [0, 1], that the model was trained with."""
        timm = registry()
        config = timm.get_pretrained_cfg(self.name, allow_unregistered=True)
        return tuple(config.mean), tuple(config.std)


def _drops_paths(model: nn.Module) -> bool:
    """Whether a part of the model, such as timm's DropPath, has a rate above 0 at which it drops paths."""
    rates = (getattr(module, name, 0) for module in model.modules() for name in ("drop_prob", "drop_path_rate", "drop_path"))
    return any(isinstance(rate, int | float) and rate > 0 for rate in rates)


def initialise_classifier(model: nn.Module, seed: int, purpose: str) -> None:
    """Initialise the classifier's layers again by their `reset_parameters`, each with a generator of its own."""
    for name, layer in classifier_of(model).named_modules():
        if hasattr(layer, "reset_parameters"):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(key(seed, f"{purpose}/classifier/{name}"))
                layer.reset_parameters()


def classifier_of(model: nn.Module) -> nn.Module:
    """The model's last layer, as timm names it."""
    classifier = model.get_classifier()  # type: ignore[operator]
    if not isinstance(classifier, nn.Module):
        raise ConfigError("model", f"{type(model).__name__} has several classifiers; expected a model with one")
    return classifier


def put_classifier(model: nn.Module, classifier: Any) -> None:
    """Replace the model's last layer with the one that the technique makes from it; raises ConfigError if it cannot."""
    layer = classifier_of(model)
    try:
        new_layer = classifier(layer)
    except ConfigError as error:
        raise error.under("classifier") from None
    if new_layer is not layer:
        name = next(name for name, module in model.named_modules() if module is layer)
        model.set_submodule(name, new_layer)


def classifier_names(model: nn.Module) -> set[str]:
    """The names of the classifier's tensors in the model's state."""
    classifier_ids = {id(tensor) for tensor in classifier_of(model).state_dict(keep_vars=True).values()}
    return {name for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in classifier_ids}


def _check_names(model: nn.Module, weights_file: Path) -> None:
    """Raise ValueError if a file lacks a tensor of the backbone or has one that the model lacks: timm ignores both."""
    with safe_open(weights_file, "pt") as file:
        names = set(file.keys())
    differing = sorted((names ^ set(model.state_dict())) - classifier_names(model))
    if differing:
        raise ValueError(f"{'it has' if differing[0] in names else 'it has no'} {differing[0]}")


@cache
def num_parameters(model: TimmModel, classifier: Technique, train: str, num_classes: int) -> int:
    """The number of parameters of the model (`train` "all") or of its classifier ("head").

    That of models and classifiers that ship with timm and with us is kept, since counting imports timm.
    """
    if not _is_shipped(model, classifier):
        return _count_parameters(model, classifier, train, num_classes)
    identity = digest([dump(_untrained(model)), dump(classifier), train, num_classes])
    return kept("parameters", identity, lambda: _count_parameters(model, classifier, train, num_classes))


def _count_parameters(model: TimmModel, classifier: Technique, train: str, num_classes: int) -> int:
    with torch.device("meta"):
        meta_model = _untrained(model)(num_classes, 0, classifier=classifier)
    return sum(parameter.numel() for parameter in (meta_model if train == "all" else classifier_of(meta_model)).parameters())


def _untrained(model: TimmModel) -> TimmModel:
    return model.model_copy(update={"pretrained": False, "weights": "none"})


def _is_shipped(model: TimmModel, classifier: Technique) -> bool:
    """Whether both are what their names say in every process: no class of the user, and no model that other code registered."""
    is_ours = type(classifier).__module__.startswith("ablation.")
    return is_ours and type(model) is TimmModel and model.name.partition(".")[0] in shipped_names() and not _is_replaced(model.name)


def _is_replaced(name: str) -> bool:
    """Whether other code has registered a model of its own under the name, which it can only where timm is imported."""
    timm = sys.modules.get("timm")
    return timm is not None and timm.is_model(name) and timm.model_entrypoint(name).__module__.partition(".")[0] not in ("timm", "ablation")


def registry() -> ModuleType:
    """The module timm, with our own models in its registry."""
    import ablation.techniques.cifar_resnet  # noqa: F401  it registers them

    return import_module("timm")


@cache
def shipped_names() -> frozenset[str]:
    """The names of our models and timm's, read from timm's source: milliseconds, where importing it takes seconds."""
    spec = importlib.util.find_spec("timm")
    assert spec is not None, "timm is not installed"
    assert spec.origin is not None, spec
    texts = (path.read_text(encoding="utf-8") for path in (Path(spec.origin).parent / "models").glob("*.py"))
    return frozenset(CIFAR_RESNETS).union(name for text in texts for name in re.findall(r"@register_model\s+def (\w+)\(", text))


def _is_registered(name: str) -> bool:
    """Whether timm knows the name after its import, including models that other code registered."""
    return bool(registry().is_model(name))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


TECHNIQUES: tuple[type[Technique], ...] = ()
ANY_NAME = TimmModel
