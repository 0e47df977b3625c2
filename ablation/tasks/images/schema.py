"""The settings that a study's file may have for image classification."""

from ablation.study.settings_schema import SettingsSchema
from ablation.tasks.images.metrics import CHOICES, CLASS_METRICS, NAMES
from ablation.training.settings import Settings, StageOptions

MEMORY_ADVICE = "a smaller batch_size or model.image_size"
SCHEMA = SettingsSchema(
    settings=Settings,
    stage_options=StageOptions,
    whole_arm=("data", "model", "precision", "deterministic", "compile", "stages"),
    required={"data": "a data set, such as cifar10", "model": "a model, such as {name: efficientnet_b0}"},
    paths=(
        *(("data", name) for name in ("root", "file", "train_list", "validation_list", "test_list", "classes")),
        ("model", "weights"),
    ),
    choices=CHOICES,
    metrics=NAMES,
    class_metrics=CLASS_METRICS,
    inner_families={"loss.weights": "class_weights", "data.longtail": "longtail"},
)
