"""The settings that are tried on the stand-in for CUDA: every technique, and other settings that take other ways on a device."""

from tests.training.test_every_technique import HEAD, arms

BASE = {"average": "none", "augment": [], "batch_size": 8}
VALIDATED = {"data.validation": 0.3}
SMALL_LAST_BATCH = {"drop_last": False, "batch_size": 7}
MORE = {
    "mixing/cutmix tail": {"mix": {"name": "cutmix", "only": "tail"}},
    "mixing/switch cmo": {"mix": {"name": "switch", "one": "mixup", "other": {"name": "cmo", "off_first": 0, "off_last": 0}}},
    "mixing/mixup small last batch": {"mix": "mixup", **SMALL_LAST_BATCH},
    "mixing/remix small last batch": {"mix": "remix", **SMALL_LAST_BATCH},
    "augmentations/affine bilinear": {"augment": [{"name": "affine", "degrees": 5.0, "interpolation": "bilinear"}]},
    "augmentations/erase zero": {"augment": [{"name": "erase", "values": "zero"}]},
    "augmentations/resized": {"model.image_size": 24, "augment": [{"name": "resize", "interpolation": "bilinear"}]},
    "augmentations/resized nearest": {"model.image_size": 24, "augment": [{"name": "resize", "interpolation": "nearest"}]},
    "augmentations/auto_augment svhn": {"augment": [{"name": "auto_augment", "policy": "svhn"}]},
    "losses/focal sigmoid": {"loss": {"name": "focal", "form": "sigmoid"}, "classifier": {"name": "linear", "initial_bias": "uniform"}},
    "losses/sampled prior": {"loss": {"name": "balanced_softmax", "prior": "sampled"}, "sampler": "class_balanced"},
    "losses/seesaw in chunks": {"loss": "seesaw"},
    "losses/equalization inverse": {"loss": {"name": "equalization", "weights": "inverse"}},
    "smoothing/others": {"smoothing": {"name": "label_smoothing", "spread": "others"}},
    "averages/ema warm-up": {"average": {"name": "ema", "decay": 0.9, "warmup": True}},
    "averages/best on validation": {"average": {"name": "ema", "decay": 0.9}, "select": "best_on_validation", **VALIDATED},
    "optimizers/sgd nesterov": {"optimizer": {"name": "sgd", "nesterov": True, "weight_decay": 1e-4}},
    "optimizers/sgd plain": {"optimizer": {"name": "sgd", "momentum": 0.0}},
    "tta/scale vote": {"tta": {"name": "scale", "average": "vote"}},
    "tta/rotate probabilities": {"tta": {"name": "rotate", "average": "probabilities"}},
    "posthoc/ncm raw": {"posthoc": {"name": "ncm", "features": "raw"}},
    "posthoc/temperature fitted": {"posthoc": "temperature", **VALIDATED},
    "classifiers/new head, mixed features": {"stages": [HEAD[0], HEAD[1] | {"head": "new", "mix": "mixup"}]},
    "classifiers/new head, fixed features": {"stages": [HEAD[0], HEAD[1] | {"head": "new", "augment": []}]},
    "classifiers/backbone in train mode": {"stages": [HEAD[0], HEAD[1] | {"backbone": "train"}]},
    "models/resnet20": {"model": {"name": "resnet20", "image_size": 16, "drop": 0.1}},
    "models/test_resnet": {"model": {"name": "test_resnet", "image_size": 32, "drop_path": 0.1}},
    "models/test_efficientnet drop": {"model": {"name": "test_efficientnet", "image_size": 32, "drop": 0.1, "drop_path": 0.1}},
    "models/test_vit": {"model": {"name": "test_vit", "image_size": 32}},
    "models/test_convnext": {"model": {"name": "test_convnext", "image_size": 32, "drop_path": 0.1}},
    "data/read from the disk": {"augment": ["hflip"]},
    "models/fp32 test_vit": {"model": {"name": "test_vit", "image_size": 32, "drop_path": 0.1}, "precision": "fp32"},
    "precision/fp32": {"precision": "fp32"},
    "precision/fp16": {"precision": "fp16"},
}


def every_setting():
    """A layer over BASE for each setting, by family and name."""
    return {"baseline": {}} | arms() | MORE
