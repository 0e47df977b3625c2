"""One trained model as a folder of its own, and that folder as something that classifies images.

Shapes: N images, B batch, H height, W width, C classes or channels, F features, V views.
"""

import json
import math
import os
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ablation.data import decoding, open_dataset, split
from ablation.errors import AblateError, ConfigError, DataError
from ablation.system.digests import file_digest
from ablation.techniques.augmentations import Resize
from ablation.techniques.models import classifier_of
from ablation.techniques.technique import make
from ablation.techniques.tta import IDENTITY
from ablation.training import checkpoints
from ablation.training.devices import placed
from ablation.training.images import Images
from ablation.training.loop import features, predict, swapped_weights
from ablation.training.pixels import Held, part_of
from ablation.training.step import Precision, resolve_precision

FORMAT = 1
WHAT = "a model that ablate exported"
WEIGHTS, ABOUT, README = "model.safetensors", "model.json", "README.md"
LAYER = "posthoc"  # before the names of the tensors of the layer that a post-hoc technique computed from training images
STORED = {"digits": 8, "cifar10": 32, "cifar100": 32}  # the side at which these are stored, whatever the model asks for
FILES = ("folder", "csv", "lists")  # these are stored at the model's size
TESTED = {"model": "models", "classifier": "classifiers", "tta": "tta", "posthoc": "posthoc"}  # what a test takes, with its family
Picture = str | Path | Image.Image
Pictures = Picture | Sequence[Picture] | np.ndarray


@dataclass(frozen=True)
class Result:
    """What a run left: whose it is, the settings that it was tested with, its classes, training counts, metrics and weights."""

    study: str
    arm: str
    seed: int
    run: str
    chosen: str  # the arm whose run it is, where that was chosen among others
    settings: Mapping[str, Any]
    classes: Sequence[str]
    counts: Sequence[int]
    metrics: Mapping[str, float]
    digest: str  # of the data that it saw
    weights: Path = field(repr=False)


def write_model(result: Result, data: Path, folder: Path) -> None:
    """Write the model into `folder`; `data` holds the decoded data sets, as far as they are still there.

    Raises AblateError where the folder cannot be written, or holds files of these names already, and DataError where something has to be
    computed from images that are gone.
    """
    taken = [name for name in (WEIGHTS, ABOUT, README) if (folder / name).exists()]
    if taken:
        raise AblateError(f"found {', '.join(taken)} in {folder}, and nothing was written; expected a folder without them")
    about = _about(result, _dataset(result, data))
    tensors = _recorded(result.weights)
    posthoc = _made(about, "posthoc")
    own = checkpoints.prefixed(LAYER, _computed(posthoc, result, about, tensors, data)) if posthoc.needs_features else {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if own:
            checkpoints.write(folder / WEIGHTS, tensors | own, {})
        else:
            _copy(result.weights, folder / WEIGHTS)
        about["sha256"] = file_digest(folder / WEIGHTS)
        (folder / README).write_text(_readme(result, folder), encoding="utf-8")
        (folder / ABOUT).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise AblateError(f"{folder} cannot be written ({error.strerror or error}); expected a folder that can be") from None


def _copy(source: Path, target: Path) -> None:
    """A file of its own, which appears whole: a link would change with the store's."""
    beside = target.with_name(f"{target.name}.{os.getpid()}.part")
    shutil.copyfile(source, beside)
    beside.replace(target)


def _about(result: Result, dataset: Path | None) -> dict[str, Any]:
    """What `load` needs beside the weights, as plain data."""
    settings = result.settings
    about: dict[str, Any] = {
        "format": FORMAT,
        "what": WHAT,
        "study": result.study,
        "arm": result.arm,
        "seed": result.seed,
        "run": result.run,
    }
    about |= {"chosen": result.chosen, "classes": list(result.classes), "counts": list(result.counts)}
    about |= {name: dict(settings[name]) for name in TESTED}
    about["model"] |= {"pretrained": False, "weights": "none"}
    about["posthoc"] |= {name.removeprefix("posthoc/"): value for name, value in result.metrics.items() if name.startswith("posthoc/")}
    mean, deviation = _made(about, "model").normalisation
    about["preprocessing"] = {
        "fit": settings["data"].get("fit", "crop"),
        "stored_size": _stored_size(settings, dataset),
        "image_size": settings["model"]["image_size"],
        "resize": next((one for one in settings["augment"] if one["name"] == "resize"), Resize().model_dump()),
        "mean": list(mean),
        "std": list(deviation),
    }
    metrics = {name: value for name, value in result.metrics.items() if name.startswith("test/") and math.isfinite(value)}
    return about | {"precision": settings["precision"], "metrics": metrics}


def _made(about: Mapping[str, Any], name: str) -> Any:
    return make(TESTED[name], about[name], name)


def _dataset(result: Result, data: Path) -> Path | None:
    """The decoded data set that the run saw, if it is still there: the one whose split has the recorded digest."""
    folders = sorted(data.glob(f"{result.settings['data']['name']}-*"))
    return next((folder for folder in folders if result.digest and _split_digest(folder, result).startswith(result.digest)), None)


def _split_digest(folder: Path, result: Result) -> str:
    try:
        return split(open_dataset(folder), _source(result), result.seed).digest
    except AblateError:  # not whole, or of another source
        return ""


def _source(result: Result) -> Any:
    return make("data", result.settings["data"], "data")


def _stored_size(settings: Mapping[str, Any], dataset: Path | None) -> int:
    """The side of the images from which the tests began, before the model's own resizing."""
    name, image_size = settings["data"]["name"], int(settings["model"]["image_size"])
    if dataset is not None:
        return int(open_dataset(dataset).images_NHWC.shape[1])
    if name not in (*STORED, *FILES):
        raise DataError(f"the size of the decoded images is not known: {_gone(settings)}")
    return STORED.get(name, image_size)


def _gone(settings: Mapping[str, Any]) -> str:
    return f"the decoded data ({settings['data']['name']}) that the run saw are not in mlruns/data; ablate plan FILE decodes them again"


def _computed(posthoc: Any, result: Result, about: Mapping[str, Any], tensors: Mapping[str, Tensor], data: Path) -> dict[str, Tensor]:
    """The tensors of the layer that the post-hoc technique makes from the features of the training images."""
    found = _dataset(result, data)
    if found is None:
        raise DataError(f"posthoc {posthoc.name} takes the features of the training images: {_gone(result.settings)}")
    dataset = open_dataset(found)
    seen = part_of(dataset, split(dataset, _source(result), result.seed).train_N, torch.device("cpu"))
    network = _network(about, tensors)
    precision = _precision(about["precision"], torch.device("cpu"))
    with torch.no_grad():
        features_NF = features(network, seen, _images(about), precision, IDENTITY)
    layer: nn.Module = posthoc.classifier(classifier_of(network), features_NF, seen.labels_N, len(result.classes))
    return {name: tensor.detach() for name, tensor in layer.state_dict().items()}


def _readme(result: Result, folder: Path) -> str:
    chosen = f" (that of {result.chosen}, chosen on validation images)" if result.chosen else ""
    return f"""# {result.arm}, seed {result.seed}, of the study {result.study}

Run {result.run}{chosen}; test accuracy {100 * result.metrics["test/accuracy"]:.2f} %, {len(result.classes)} classes.

```python
import ablation
model = ablation.load("{folder.name}")
print(model.predict(["image.jpg"]))
```

`model.probabilities(images)` and `model.logits(images)` take file names, PIL images or a uint8 array (N, H, W, 3);
`model.preprocess(image)` is the input of `model.network`, a torch module. Test-time views and post-hoc adjustment are part of
`logits`, as in the recorded test.
"""


# --- loading -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """A trained model as it was tested: the network, its preprocessing, test-time views and post-hoc technique."""

    classes: tuple[str, ...]
    network: nn.Module = field(repr=False)
    about: Mapping[str, Any] = field(repr=False)
    images: Images = field(repr=False)
    tta: Any = field(repr=False)
    posthoc: Any = field(repr=False)
    layer: nn.Module | None = field(repr=False)  # what scores the features in the classifier's place, where something does

    def preprocess(self, image: Picture) -> Tensor:
        """The network's input for one image: C x H x W."""
        pixels_NCHW = self._pixels([image])
        return self.images.normalised(self.images.plain(pixels_NCHW))[0]

    @torch.no_grad()
    def logits(self, images: Pictures) -> Tensor:
        """The scores N x C that the recorded predictions are made of: views combined, post-hoc technique applied."""
        device = next(self.network.parameters()).device
        pixels_NCHW = self._pixels(images)
        data = Held(pixels_NCHW, torch.zeros(len(pixels_NCHW), dtype=torch.long, device=device))
        how = (self.images, _precision(self.about["precision"], device))
        with swapped_weights(self.network, None):  # in eval mode, whatever mode it is in now
            if self.layer is None:
                logits = [predict(self.network, data, *how, view) for view in self.tta.views()]
            else:
                layer = self.layer.to(device)
                logits = [layer(features(self.network, data, *how, view)) for view in self.tta.views()]
        counts_C = torch.tensor(self.about["counts"], dtype=torch.float32, device=device)
        scores_NC: Tensor = self.posthoc(self.tta.combine(torch.stack(logits)), counts_C)
        return scores_NC.cpu()

    def probabilities(self, images: Pictures) -> Tensor:
        """The softmax of the scores, N x C."""
        return self.logits(images).softmax(1)

    def predict(self, images: Pictures) -> list[str]:
        """The class of each image, by name."""
        return [self.classes[c] for c in self.logits(images).argmax(1).tolist()]

    def _pixels(self, images: Pictures) -> Tensor:
        """The images as the pipeline stores them: uint8, N x C x H x W."""
        size, fit = self.about["preprocessing"]["stored_size"], self.about["preprocessing"]["fit"]
        if isinstance(images, np.ndarray):
            _check_array(images)
            if images.shape[1:] == (size, size, 3):
                return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)  # a copy, for torch wants to be able to write
        several: Iterable[Any] = [images] if isinstance(images, Picture) else images
        stored = [_stored(image, size, fit) for image in several]
        if not stored:
            raise DataError("found no images; expected at least one")
        return torch.from_numpy(np.stack(stored)).permute(0, 3, 1, 2)


def _check_array(images: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or not images.size:
        raise DataError(f"found an array of {images.dtype} and shape {images.shape}; expected uint8 and (N, H, W, 3), or a list of images")


def _stored(image: Any, size: int, fit: str) -> np.ndarray:
    """One image as the pipeline stores it: upright, RGB, fitted to a square."""
    name = str(image) if isinstance(image, str | Path) else "the image"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if isinstance(image, Image.Image):
                return np.asarray(decoding.FITS[fit](decoding.rgb(ImageOps.exif_transpose(image)), size))
            if isinstance(image, np.ndarray):
                return decoding.pixels(image[..., 0] if image.shape[2:] == (1,) else image, size, fit)
            return decoding.pixels(Path(image), size, fit)
    except Exception as error:  # a broken file makes Pillow's parsers raise almost anything
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        raise DataError(f"{name} cannot be read: {reason}; expected a path, a PIL image or a uint8 array") from None


def load(folder: str | Path) -> Model:
    """The model that `ablate export` wrote into `folder`, on the CPU; it downloads nothing and reads no pickle.

    Raises AblateError where a file is missing, damaged, or not the one that was written.
    """
    place = Path(folder)
    about = _read_about(place / ABOUT)
    if not (place / WEIGHTS).is_file():
        raise AblateError(f"there is no file {place / WEIGHTS}; expected the weights that ablate export wrote beside {ABOUT}")
    tensors = _tensors(place / WEIGHTS)
    if file_digest(place / WEIGHTS) != about.get("sha256"):
        raise AblateError(
            f"{place / WEIGHTS} is not the file that was exported (its SHA-256 differs from that in {ABOUT}); export it again"
        )
    try:
        network = _network(about, tensors)
        posthoc = _made(about, "posthoc")
        layer = _layer(posthoc, network, about, tensors)
        return Model(tuple(about["classes"]), network, about, _images(about), _made(about, "tta"), posthoc, layer)
    except ConfigError as error:
        raise AblateError(f"{place / ABOUT}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise AblateError(f"{place / ABOUT} does not fit its weights, or lacks something ({_first_line(error)}); export it again") from None


def _read_about(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AblateError(f"there is no file {path}; expected a folder that ablate export wrote") from None
    except (OSError, ValueError, RecursionError):
        raise AblateError(f"{path} cannot be read; expected a folder that ablate export wrote") from None
    if not isinstance(about, dict) or about.get("what") != WHAT:
        raise AblateError(f"{path} is no description of a model; expected a folder that ablate export wrote")
    if about.get("format") != FORMAT:
        raise AblateError(f"found {path} in format {about.get('format')!r}; expected {FORMAT}: a newer ablate wrote it, and reads it")
    return about


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise AblateError(f"{path} cannot be read: {_first_line(error)}; expected whole weights in the safetensors format") from None


def _recorded(path: Path) -> dict[str, Tensor]:
    """The tensors of a run's recorded weights, which must be as they were written."""
    tensors = _tensors(path)
    if checkpoints.read(path) is None:
        raise AblateError(f"{path} was changed since it was written, or is of an older ablate; run its arm again with --rerun force")
    return tensors


def _network(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    """The network with these weights, in eval mode; none are fetched for it."""
    model = _made(about, "model").model_copy(update={"pretrained": False, "weights": "none"})
    network = placed(model(len(about["classes"]), 0, classifier=_made(about, "classifier")), torch.device("cpu"))
    network.load_state_dict({name: tensor for name, tensor in tensors.items() if not name.startswith(f"{LAYER}/")})
    return network.eval()


def _images(about: Mapping[str, Any]) -> Images:
    """The way from stored pixels to the network's input."""
    said = about["preprocessing"]
    resize = make("augmentations", said["resize"], "preprocessing.resize")
    return Images((resize,), int(said["image_size"]), tuple(said["mean"]), tuple(said["std"]))


def _layer(posthoc: Any, network: nn.Module, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module | None:
    """What scores the features in the classifier's place, where the post-hoc technique puts something there."""
    if not posthoc.replaces_classifier:
        return None
    num_classes, features_CF, labels_C = len(about["classes"]), None, None
    if posthoc.needs_features:  # the layer is made of any features of one image per class, and then gets the tensors that were computed
        black_CCHW = torch.zeros(num_classes, 3, 8, 8, dtype=torch.uint8)
        labels_C = torch.arange(num_classes)
        with torch.no_grad():
            features_CF = features(network, Held(black_CCHW, labels_C), _images(about), Precision("fp32"), IDENTITY)
    layer: nn.Module = posthoc.classifier(classifier_of(network), features_CF, labels_C, num_classes)
    if posthoc.needs_features:
        layer.load_state_dict(checkpoints.under(LAYER, tensors))
    return layer


def _precision(name: str, device: torch.device) -> Precision:
    """The number format of the tests as far as this device has it; fp16 needs a CUDA device."""
    return Precision("fp32") if name == "fp16" and device.type != "cuda" else resolve_precision(name, device)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
