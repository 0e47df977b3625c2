"""A trained model exported into a folder, and loaded from it to classify images.

Shapes: N images, B batch, H height, W width, C classes or channels, F features, V views.
"""

import json
import math
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ablation.data import open_dataset, raster, split
from ablation.errors import AblateError, ConfigError, DataError
from ablation.system.digests import file_digest
from ablation.system.files import part_of
from ablation.techniques import technique
from ablation.techniques.augmentations import Resize
from ablation.techniques.models import classifier_of
from ablation.techniques.technique import make
from ablation.techniques.tta import IDENTITY
from ablation.tracking.messages import first_line
from ablation.training import checkpoints
from ablation.training.devices import as_in_tests, to_device
from ablation.training.images import ImagePipeline
from ablation.training.loop import extract_features, predict, swapped_weights
from ablation.training.pixels import ImagesInMemory, images_of_rows
from ablation.training.step import Precision, resolve_precision
from ablation.training.work import WEIGHTS

FORMAT = 1
FILE_KIND = "a model that ablate exported"
DESCRIPTION, README = "model.json", "README.md"
LAYER_PREFIX = "posthoc"  # of the tensors of the layer that a post-hoc technique computed from training images
STORED_SIZES = {"digits": 8, "cifar10": 32, "cifar100": 32}  # the side of the images in these data sets, whatever the model's size
IMAGE_FILES = ("folder", "csv", "lists")  # these data sets are stored at the model's size
TECHNIQUES = {"model": "models", "classifier": "classifiers", "tta": "tta", "posthoc": "posthoc"}  # that a test uses -> the family
OneImage = str | Path | Image.Image
SomeImages = OneImage | Sequence[OneImage] | np.ndarray


@dataclass(frozen=True)
class TrainedRun:
    """A finished run: its identity, the settings that it was tested with, classes, training counts, metrics and weights."""

    study: str
    arm: str
    seed: int
    run: str
    chosen_arm: str  # the arm that was trained, if `arm` is a choice among arms; else ""
    settings: Mapping[str, Any]
    classes: Sequence[str]
    counts: Sequence[int]
    metrics: Mapping[str, float]
    digest: str  # of its data
    precision: str  # with which it was tested, where the settings say auto
    weights: Path = field(repr=False)


def write_model(run: TrainedRun, data: Path, folder: Path) -> None:
    """Write the model into `folder`; `data` is the folder of the decoded data sets that are still there.

    Raises AblateError if the folder cannot be written or already holds files of these names, and DataError if something has to be
    computed from images that are gone.
    """
    existing = [name for name in (WEIGHTS, DESCRIPTION, README) if (folder / name).exists()]
    if existing:
        raise AblateError(f"found {', '.join(existing)} in {folder}, and nothing was written; expected a folder without them")
    description = _describe(run, _find_dataset(run, data))
    tensors = _read_recorded(run.weights)
    posthoc = _make_technique(description, "posthoc")
    layer = _layer_tensors(posthoc, run, description, tensors, data) if posthoc.needs_features else {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if layer:
            checkpoints.write(folder / WEIGHTS, tensors | checkpoints.with_prefix(LAYER_PREFIX, layer), {})
        else:
            _copy(run.weights, folder / WEIGHTS)
        description["sha256"] = file_digest(folder / WEIGHTS)
        (folder / README).write_text(_readme(run, folder), encoding="utf-8")
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise AblateError(f"{folder} cannot be written ({error.strerror or error}); expected a folder that can be") from None


def _copy(source: Path, target: Path) -> None:
    """Copy the file, so that it is never incomplete; a link would change with the file in the store."""
    part = part_of(target)
    shutil.copyfile(source, part)
    part.replace(target)


def _describe(run: TrainedRun, dataset: Path | None) -> dict[str, Any]:
    """What `load` needs besides the weights, as plain data."""
    settings = run.settings
    description: dict[str, Any] = {
        "format": FORMAT,
        "what": FILE_KIND,
        "study": run.study,
        "arm": run.arm,
        "seed": run.seed,
        "run": run.run,
    }
    description |= {"chosen": run.chosen_arm, "classes": list(run.classes), "counts": list(run.counts)}
    description |= {name: dict(settings[name]) for name in TECHNIQUES}
    description["model"] |= {"pretrained": False, "weights": "none"}
    description["posthoc"] |= {name.removeprefix("posthoc/"): value for name, value in run.metrics.items() if name.startswith("posthoc/")}
    mean, std = _make_technique(description, "model").normalisation
    description["preprocessing"] = {
        "fit": settings["data"].get("fit", "crop"),
        "range": settings["data"].get("range", list(raster.FULL_RANGE)),
        "stored_size": _stored_size(settings, dataset),
        "image_size": settings["model"]["image_size"],
        "resize": next((technique for technique in settings["augment"] if _is_resize(technique)), Resize().model_dump()),
        "mean": list(mean),
        "std": list(std),
    }
    metrics = {name: value for name, value in run.metrics.items() if name.startswith("test/") and math.isfinite(value)}
    return description | {"precision": settings["precision"], "auto": run.precision, "metrics": metrics}


def _is_resize(technique: Mapping[str, Any]) -> bool:
    return bool(make("augmentations", technique, "augment").works_on == "resize")


def _make_technique(description: Mapping[str, Any], name: str) -> Any:
    return make(TECHNIQUES[name], description[name], name)


def _find_dataset(run: TrainedRun, data: Path) -> Path | None:
    """The decoded data set of the run, if it is still there: the one whose split has the recorded digest."""
    folders = sorted(data.glob(f"{run.settings['data']['name']}-*"))
    return next((folder for folder in folders if run.digest and _split_digest(folder, run).startswith(run.digest)), None)


def _split_digest(folder: Path, run: TrainedRun) -> str:
    try:
        return split(open_dataset(folder), _source(run), run.seed).digest
    except AblateError:  # incomplete, or of another source
        return ""


def _source(run: TrainedRun) -> Any:
    return make("data", run.settings["data"], "data")


def _stored_size(settings: Mapping[str, Any], dataset: Path | None) -> int:
    """The side of the decoded images, before the model's own resizing."""
    name, image_size = settings["data"]["name"], int(settings["model"]["image_size"])
    if dataset is not None:
        return int(open_dataset(dataset).images_NHWC.shape[1])
    if name not in (*STORED_SIZES, *IMAGE_FILES):
        raise DataError(f"the size of the decoded images is not known: {_no_data(settings)}")
    return STORED_SIZES.get(name, image_size)


def _no_data(settings: Mapping[str, Any]) -> str:
    return f"the run's decoded data ({settings['data']['name']}) are not in mlruns/data; ablate plan FILE decodes them again"


def _layer_tensors(
    posthoc: Any, run: TrainedRun, description: Mapping[str, Any], tensors: Mapping[str, Tensor], data: Path
) -> dict[str, Tensor]:
    """The tensors of the layer that the post-hoc technique computes from the features of the training images."""
    folder = _find_dataset(run, data)
    if folder is None:
        raise DataError(f"posthoc {posthoc.name} takes the features of the training images: {_no_data(run.settings)}")
    dataset = open_dataset(folder)
    train_images = images_of_rows(dataset, split(dataset, _source(run), run.seed).train_N, torch.device("cpu"))
    network = _make_network(description, tensors)
    precision = _precision(description, torch.device("cpu"))
    with torch.no_grad():
        features_NF = extract_features(network, train_images, _make_pipeline(description), precision, IDENTITY)
    layer: nn.Module = posthoc.classifier(classifier_of(network), features_NF, train_images.labels_N, len(run.classes))
    return {name: tensor.detach() for name, tensor in layer.state_dict().items()}


def _readme(run: TrainedRun, folder: Path) -> str:
    chosen = f" (that of {run.chosen_arm}, chosen on validation images)" if run.chosen_arm else ""
    return f"""# {run.arm}, seed {run.seed}, of the study {run.study}

Run {run.run}{chosen}; test accuracy {100 * run.metrics["test/accuracy"]:.2f} %, {len(run.classes)} classes.

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
    pipeline: ImagePipeline = field(repr=False)
    tta: Any = field(repr=False)
    posthoc: Any = field(repr=False)
    layer: nn.Module | None = field(repr=False)  # replaces the classifier, if the post-hoc technique says so

    def preprocess(self, image: OneImage) -> Tensor:
        """The network's input for one image: C x H x W."""
        pixels_NCHW = self._pixels([image])
        return self.pipeline.normalised(self.pipeline.resized(pixels_NCHW))[0]

    @torch.no_grad()
    def logits(self, images: SomeImages) -> Tensor:
        """The scores N x C, as the recorded predictions were made from them: views combined, post-hoc technique applied."""
        device = next(self.network.parameters()).device
        pixels_NCHW = self._pixels(images).to(device)
        data = ImagesInMemory(pixels_NCHW, torch.zeros(len(pixels_NCHW), dtype=torch.long, device=device))
        pipeline, precision = self.pipeline, _precision(self.about, device)
        with as_in_tests(device), swapped_weights(self.network, None):  # in eval mode, whatever mode it is in now
            if self.layer is None:
                logits = [predict(self.network, data, pipeline, precision, view) for view in self.tta.views()]
            else:
                layer = self.layer.to(device)
                logits = [layer(extract_features(self.network, data, pipeline, precision, view)) for view in self.tta.views()]
        counts_C = torch.tensor(self.about["counts"], dtype=torch.float32, device=device)
        scores_NC: Tensor = self.posthoc(self.tta.combine(torch.stack(logits)), counts_C)
        return scores_NC.cpu()

    def probabilities(self, images: SomeImages) -> Tensor:
        """The softmax of the scores, N x C."""
        return self.logits(images).softmax(1)

    def predict(self, images: SomeImages) -> list[str]:
        """The class of each image, by name."""
        return [self.classes[c] for c in self.logits(images).argmax(1).tolist()]

    def _pixels(self, images: SomeImages) -> Tensor:
        """The images as the pipeline stores them: uint8, N x C x H x W."""
        stored = self.about["preprocessing"]
        size, fit, value_range = stored["stored_size"], stored["fit"], tuple(stored.get("range", raster.FULL_RANGE))
        if isinstance(images, np.ndarray):
            _check_array(images)
            if images.shape[1:] == (size, size, 3):
                return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2)  # a copy, since torch requires a writable array
        sequence: Iterable[Any] = [images] if isinstance(images, OneImage) else images
        pixels = [_decode(image, size, fit, value_range) for image in sequence]
        if not pixels:
            raise DataError("found no images; expected at least one")
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)


def _check_array(images: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or not images.size:
        raise DataError(f"found an array of {images.dtype} and shape {images.shape}; expected uint8 and (N, H, W, 3), or a list of images")


def _decode(image: Any, size: int, fit: str, value_range: raster.Range) -> np.ndarray:
    """One image as the pipeline stores it: upright, RGB, fitted to a square."""
    name = str(image) if isinstance(image, str | Path) else "the image"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if isinstance(image, Image.Image):
                return raster.opened_pixels(image, size, fit, value_range)
            if isinstance(image, np.ndarray):
                if image.dtype != np.uint8:
                    raise TypeError(f"is an array of {image.dtype}")
                return raster.pixels(image[..., 0] if image.shape[2:] == (1,) else image, size, fit)
            return raster.pixels(Path(image), size, fit, value_range)
    except Exception as error:  # for a broken file Pillow may raise almost anything
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        raise DataError(f"{name} cannot be read: {reason}; expected a path, a PIL image or a uint8 array") from None


def load(folder: str | Path, *, allow_code: bool = False) -> Model:
    """The model that `ablate export` wrote into `folder`, on the CPU. Nothing is downloaded, and no pickle is read.

    With `allow_code` it may name techniques of one's own, which are looked for where Python looks and in the current folder. Raises
    AblateError if a file is missing, damaged, or not the one that was written.
    """
    path = Path(folder)
    if allow_code:
        technique.allow_code()
    description = _read_description(path / DESCRIPTION)
    if not (path / WEIGHTS).is_file():
        raise AblateError(f"there is no file {path / WEIGHTS}; expected the weights that ablate export wrote beside {DESCRIPTION}")
    tensors = _read_tensors(path / WEIGHTS)
    if file_digest(path / WEIGHTS) != description.get("sha256"):
        raise AblateError(
            f"{path / WEIGHTS} is not the file that was exported (its SHA-256 differs from that in {DESCRIPTION}); export it again"
        )
    try:
        network = _make_network(description, tensors)
        posthoc = _make_technique(description, "posthoc")
        layer = _make_layer(posthoc, network, description, tensors)
        classes, pipeline = tuple(description["classes"]), _make_pipeline(description)
        return Model(classes, network, description, pipeline, _make_technique(description, "tta"), posthoc, layer)
    except ConfigError as error:
        raise AblateError(f"{path / DESCRIPTION}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        problem = f"{path / DESCRIPTION} does not fit its weights, or lacks something ({first_line(error)}); export it again"
        raise AblateError(problem) from None


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AblateError(f"there is no file {path}; expected a folder that ablate export wrote") from None
    except (OSError, ValueError, RecursionError):
        raise AblateError(f"{path} cannot be read; expected a folder that ablate export wrote") from None
    if not isinstance(description, dict) or description.get("what") != FILE_KIND:
        raise AblateError(f"{path} is not a description of a model; expected a folder that ablate export wrote")
    if description.get("format") != FORMAT:
        problem = f"found {path} in format {description.get('format')!r}; expected {FORMAT}"
        raise AblateError(f"{problem}: a newer ablate wrote it, and can read it")
    return description


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise AblateError(f"{path} cannot be read: {first_line(error)}; expected complete weights in the safetensors format") from None


def _read_recorded(path: Path) -> dict[str, Tensor]:
    """The tensors of a run's recorded weights; raises AblateError if the file has changed since it was written."""
    tensors = _read_tensors(path)
    if checkpoints.read(path) is None:
        raise AblateError(f"{path} was changed since it was written, or is of an older ablate; run its arm again with --rerun force")
    return tensors


def _make_network(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    """The network with these weights, in eval mode; no pretrained weights are downloaded."""
    model = _make_technique(description, "model").model_copy(update={"pretrained": False, "weights": "none"})
    classifier = _make_technique(description, "classifier")
    network = to_device(model(len(description["classes"]), 0, classifier=classifier), torch.device("cpu"))
    network.load_state_dict({name: tensor for name, tensor in tensors.items() if not name.startswith(f"{LAYER_PREFIX}/")})
    return network.eval()


def _make_pipeline(description: Mapping[str, Any]) -> ImagePipeline:
    """The pipeline from stored pixels to the network's input."""
    preprocessing = description["preprocessing"]
    resize = make("augmentations", preprocessing["resize"], "preprocessing.resize")
    mean, std = tuple(preprocessing["mean"]), tuple(preprocessing["std"])
    return ImagePipeline((resize,), int(preprocessing["image_size"]), mean, std)


def _make_layer(posthoc: Any, network: nn.Module, description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module | None:
    """The layer with which the post-hoc technique replaces the classifier, or None if it keeps the classifier."""
    if not posthoc.replaces_classifier:
        return None
    num_classes, features_CF, labels_C = len(description["classes"]), None, None
    if posthoc.needs_features:  # the layer is made from the features of one black image per class, and then gets the saved tensors
        black_CCHW = torch.zeros(num_classes, 3, 8, 8, dtype=torch.uint8)
        labels_C = torch.arange(num_classes)
        images, pipeline = ImagesInMemory(black_CCHW, labels_C), _make_pipeline(description)
        with torch.no_grad():
            features_CF = extract_features(network, images, pipeline, Precision("fp32"), IDENTITY)
    layer: nn.Module = posthoc.classifier(classifier_of(network), features_CF, labels_C, num_classes)
    if posthoc.needs_features:
        layer.load_state_dict(checkpoints.tensors_under(LAYER_PREFIX, tensors))
    return layer


def _precision(description: Mapping[str, Any], device: torch.device) -> Precision:
    """The precision of the tests; but fp16 needs a CUDA device and becomes fp32 on any other, and so does what `auto` was on one."""
    name = str(description["precision"])
    if name == "auto" and device.type == "cuda":
        name = str(description.get("auto", name))  # which exports of an earlier version lack
    return Precision("fp32") if name == "fp16" and device.type != "cuda" else resolve_precision(name, device)
