"""Testing: the scores of trained weights on the test and validation images, and the folder of a run's result.

N images, B batch, C classes, F features.
"""

import time
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ablation.data.drawing import has_groups
from ablation.errors import DataError, TrainingError
from ablation.study import groups
from ablation.system import sealed
from ablation.system.hardware import hardware
from ablation.system.randomness import key
from ablation.techniques.models import classifier_of
from ablation.techniques.tta import IDENTITY
from ablation.training import checkpoints, evaluation, frozen
from ablation.training.datasets import dataset_and_split, images_on_device
from ablation.training.devices import to_device
from ablation.training.frozen import FeatureCache
from ablation.training.images import ImagePipeline, image_pipeline
from ablation.training.loop import copy_into, ends_with_classifier, extract_features, predict
from ablation.training.pixels import SplitImages
from ablation.training.settings import Settings
from ablation.training.states import data_name, untrained_model
from ablation.training.step import Precision, resolve_precision
from ablation.training.work import WEIGHTS, TestRequest, TrainingWork


def write_result(work: TrainingWork, request: TestRequest, saved: checkpoints.SavedState, device: torch.device) -> None:
    """Test the weights that a run asks for, and write the folder of its result, which appears only when it is complete."""
    settings, began = request.settings, time.time()
    dataset, parts = dataset_and_split(work.dataset, settings.data, work.seed)
    prefix = _weights_prefix(request)
    torch.manual_seed(key(work.seed, "evaluation"))
    scores, fitted = _scores(work, settings, _TestedWeights(work, prefix, saved), device)
    labels_N = np.asarray(dataset.labels_N[parts.test_N])
    table = evaluation.predictions(parts.test_N, labels_N, scores["test"].numpy(), dataset.classes)
    table = table.assign(group=dataset.group_N[parts.test_N]) if has_groups(dataset.group_N) else table
    classes_by_group = groups.resolve(request.groups, parts.group_counts_C.tolist(), dataset.classes)
    metrics = evaluation.metrics(labels_N, scores["test"].numpy(), dataset.classes, classes_by_group) | fitted
    if "validation" in scores:
        validation_N = np.asarray(dataset.labels_N[parts.validation_N])
        validation = evaluation.metrics(validation_N, scores["validation"].numpy(), dataset.classes, classes_by_group, "validation")
        metrics |= {name: value for name, value in validation.items() if name.count("/") == 1} | {"validation/images": len(validation_N)}
    best = saved.record["best"].get(prefix.removeprefix("best/"))
    metrics |= {"epochs/selected": best[1] + 1} if best else {}
    is_statistical = not saved.record["device"].startswith("cpu") and not settings.deterministic
    result = {
        "key": request.key,
        "content": request.content,
        "metrics": metrics,
        "history": saved.record["history"],
        "best": best,
        "classes": list(dataset.classes),
        "counts": {"train": parts.counts_C.tolist(), "test": np.bincount(labels_N, minlength=len(dataset.classes)).tolist()},
        "digest": parts.digest,
        "tags": {
            "device": saved.record["device"],
            "hardware": hardware(),
            "precision": saved.record["precision"],
            "step": saved.record["step"],
            "statistical": "yes" if is_statistical else "no",
            **({"build": saved.record["build"]} if saved.record.get("build") else {}),
        },
        "finished": int(time.time() * 1000),
        "seconds": time.time() - began,
    }
    folder = work.results / request.key
    sealed.clear_part(folder)
    _write_tables(sealed.part_of(folder), table, dataset.classes)
    weights = {WEIGHTS: _weights_file(work, prefix, saved)} if request.keep_weights else {}
    sealed.complete(folder, result, weights)


def _write_tables(part: Path, table: pd.DataFrame, classes: Sequence[str]) -> None:
    """The predictions of the test images, and the two tables that are made of them."""
    labels_N, predicted_N = table["label"].to_numpy(), table["predicted"].to_numpy()
    table.to_parquet(part / "predictions.parquet", index=False, write_page_checksum=True)
    report = evaluation.report_text(labels_N, predicted_N, classes)
    (part / "classification_report.txt").write_text(report, encoding="utf-8")
    confusion = evaluation.confusion(labels_N, predicted_N, classes).to_csv()
    (part / "confusion_matrix.csv").write_text(confusion, encoding="utf-8")


def _weights_file(work: TrainingWork, prefix: str, saved: checkpoints.SavedState) -> Path:
    """A file of the tested weights, which all results of the same weights share."""
    path = work.stages / work.key / f"{prefix.replace('/', '-').replace('|', '-')}.safetensors"
    if checkpoints.read_or_set_aside(path) is None:
        checkpoints.write(path, checkpoints.tensors_under(prefix, saved.tensors), {"key": work.key})
    return path


def clear_caches() -> None:
    """Free the weights, features and logits of the last job."""
    for function in (_view_logits, _view_features, _tested_model):
        function.cache_clear()


def _weights_prefix(request: TestRequest) -> str:
    """The prefix of the tested weights in the stage's file."""
    if request.settings.select != "last":
        return f"best/{request.average}|{request.settings.select.removeprefix('best_on_')}"
    return f"average/{request.average}" if request.settings.average.averages else "model"


class _TestedWeights:
    """One set of tested weights, identified by the stage's key and the prefix in the stage's file."""

    def __init__(self, work: TrainingWork, prefix: str, saved: checkpoints.SavedState) -> None:
        self.work, self.prefix, self.saved = work, prefix, saved

    def __hash__(self) -> int:
        return hash((self.work.key, self.prefix))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _TestedWeights) and (self.work.key, self.prefix) == (other.work.key, other.prefix)


def _scores(
    work: TrainingWork, settings: Settings, weights: _TestedWeights, device: torch.device
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The final scores of the test images, and of any validation images; and the parameters that were fitted to the latter."""
    dataset, parts = dataset_and_split(work.dataset, settings.data, work.seed)
    layer = _posthoc_layer(settings.posthoc, weights, device) if settings.posthoc.replaces_classifier else None
    splits = ["validation", "test"] if len(parts.validation_N) else ["test"]
    scores = {split: _combined_views(settings, weights, split, layer, device) for split in splits}
    posthoc, fitted = settings.posthoc, {}
    if posthoc.needs_validation:
        if "validation" not in scores:
            raise DataError(f"posthoc: {posthoc.name} is fitted on validation images, but there are none; expected data.validation above 0")
        labels_N = torch.from_numpy(np.asarray(dataset.labels_N[parts.validation_N])).to(device)
        posthoc = posthoc.fitted(scores["validation"], labels_N)
        configured = settings.posthoc.model_dump()
        fitted = {f"posthoc/{name}": value for name, value in posthoc.model_dump().items() if value != configured[name]}
    counts_C = torch.from_numpy(parts.counts_C).float().to(device)
    final = {split: posthoc(scores_NC, counts_C).cpu() for split, scores_NC in scores.items()}
    if not all(bool(torch.isfinite(scores_NC).all()) for scores_NC in final.values()):
        raise TrainingError("nan", "the tested weights give logits that are not finite; a lower optimizer.lr may help")
    return final, fitted


def _combined_views(settings: Settings, weights: _TestedWeights, split: str, layer: nn.Module | None, device: torch.device) -> Tensor:
    """The scores of one split's images, their views combined; `layer`, if there is one, replaces the classifier."""
    views = settings.tta.views()
    if layer is None:
        logits = [_view_logits(weights, split, view, device) for view in views]
    else:
        with torch.no_grad():
            logits = [layer(_view_features(weights, split, view, device)) for view in views]
    scores_NC: Tensor = settings.tta.combine(torch.stack(logits))
    return scores_NC


def _posthoc_layer(posthoc: Any, weights: _TestedWeights, device: torch.device) -> nn.Module:
    """The layer with which a post-hoc technique replaces the classifier."""
    work = weights.work
    classifier = classifier_of(_tested_model(weights, device))
    dataset, _ = dataset_and_split(work.dataset, work.stage.settings.data, work.seed)
    features_NF = labels_N = None
    if posthoc.needs_features:
        features_NF = _view_features(weights, "train", IDENTITY, device)
        labels_N = images_on_device(work.dataset, work.stage.settings.data, work.seed, "train", device).labels_N
    layer: nn.Module = posthoc.classifier(classifier, features_NF, labels_N, len(dataset.classes))
    return layer.to(device)


@lru_cache(maxsize=16)
def _view_logits(weights: _TestedWeights, split: str, view: Any, device: torch.device) -> Tensor:
    """The logits of one split's images in one view, computed once per worker."""
    model, (images, pipeline, precision) = _tested_model(weights, device), _images_and_pipeline(weights, split, device)
    work = weights.work
    if work.features is None or not frozen.has_frozen_backbone(work.stage) or not ends_with_classifier(model, images, pipeline, precision):
        return predict(model, images, pipeline, precision, view)
    name = frozen.split_cache_name(model, data_name(work), work.stage.settings, split, view)
    compute = partial(extract_features, model, images, pipeline, precision, view)
    features_NF = frozen.cached_features(FeatureCache(work.features), name, compute, device)
    return frozen.logits_of_features(classifier_of(model), features_NF, pipeline.eval_batch_size)


@lru_cache(maxsize=16)
def _view_features(weights: _TestedWeights, split: str, view: Any, device: torch.device) -> Tensor:
    """The classifier's input for one split's images in one view, computed once per worker."""
    return extract_features(_tested_model(weights, device), *_images_and_pipeline(weights, split, device), view)


def _images_and_pipeline(weights: _TestedWeights, split: str, device: torch.device) -> tuple[SplitImages, ImagePipeline, Precision]:
    work, settings = weights.work, weights.work.stage.settings
    return (
        images_on_device(work.dataset, settings.data, work.seed, split, device),
        image_pipeline(settings),
        resolve_precision(settings.precision, device),
    )


@lru_cache(maxsize=1)
def _tested_model(weights: _TestedWeights, device: torch.device) -> nn.Module:
    work = weights.work
    num_classes = len(dataset_and_split(work.dataset, work.stage.settings.data, work.seed)[0].classes)
    model = to_device(untrained_model(work, num_classes, work.stage.settings.classifier), device)
    copy_into(model, checkpoints.tensors_under(weights.prefix, weights.saved.tensors))
    model.eval()
    return model
