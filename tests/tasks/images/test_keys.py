"""The keys of stages and runs: what changes them, and what does not."""

import importlib
import itertools
import json
import linecache
import sys
from typing import Literal

import pytest

from ablation.planning.plan import make_plan
from ablation.planning.states import RecordedState
from ablation.system import code as code_module
from ablation.tasks.images import keys
from ablation.tasks.images.planner import average_id
from ablation.techniques.averages import Ema
from ablation.techniques.losses import CrossEntropy, Focal
from ablation.techniques.technique import Technique
from tests.studies import BASE, context, planner, source, study
from tests.test_layers import MODULES, imports, ours

CACHES = (
    code_module.class_code,
    keys.code_digest,
    keys._test_code,
    keys.versions,
    code_module._defined,
    code_module.module_code,
    code_module._tree,
    code_module._counts,
)


@pytest.fixture(autouse=True)
def _empty_caches():
    """After each test the cached code and versions are forgotten."""
    yield
    for function in CACHES:
        function.cache_clear()


def runs(folder, plan_context=None, **sections):
    """The planned runs of a study, by arm and seed."""
    loaded = study(folder, **sections)
    plan = make_plan(loaded, loaded.seeds, [arm.name for arm in loaded.arms], planner(loaded, plan_context), RecordedState())
    return {(run.arm, run.seed): run for run in plan.runs}


def baseline(folder, plan_context=None, **base):
    """The first run of a study with this base."""
    return runs(folder, plan_context, base={**BASE, **base})["baseline", 0]


# --- the device's libraries -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("device", "counts"), [("cuda Fake H100", True), ("cpu AVX2", False), ("mps", False)])
def test_the_build_of_cuda_counts_on_cuda_alone(tmp_path, monkeypatch, device, counts):
    """Another CUDA, another cuDNN or another meaning of fp32 is another key there, and the same one on a CPU."""
    found = set()
    for build in (
        "CUDA 13.2, cuDNN 92600, TF32 off in fp32",
        "CUDA 13.2, cuDNN 92600, TF32 on in fp32",
        "CUDA 12.9, cuDNN 91900, TF32 off in fp32",
    ):
        monkeypatch.setattr(keys, "cuda_build", lambda build=build: build)
        run = baseline(tmp_path, context(device=device))
        found.add((run.key, *run.chain))
    assert len(found) == (3 if counts else 1)


# --- settings ------------------------------------------------------------------------------------------------------------------


CHANGES_OUTSIDE_THE_STAGE = [
    {"seeds": (0, 1, 2)},
    {"variants": {"v": {"loss": "focal"}}},
    {"ladder": {"baseline": {"label": "Base", "published": {"A": 80}}, "cb": {"sampler": "class_balanced"}}},
    {"conditions": {"avg": {"average": "ema"}}},
    {"variants": {"v": {"tta": "flips"}}},
    {"variants": {"v": {"select": "best_on_test"}}},
    {"study": "another"},
    {"groups": {"many": ">50"}},
    {"keep": "none"},
]


@pytest.mark.parametrize("sections", CHANGES_OUTSIDE_THE_STAGE)
def test_what_changes_no_stage(tmp_path, sections):
    """Another arm, seed, average, view, group or name does not change the key of the training."""
    plain, changed = runs(tmp_path)["baseline", 0], runs(tmp_path, **sections)["baseline", 0]
    assert plain.chain == changed.chain


WATCHERS = [{"average": "ema"}, {"tta": "hflip"}, {"select": "best_on_test"}, {"tta": {"name": "hflip", "average": "vote"}}]


@pytest.mark.parametrize("layer", WATCHERS)
def test_watchers_change_the_run_and_not_the_stage(tmp_path, layer):
    """Watchers share the training, but change the test."""
    plain, watched = baseline(tmp_path), baseline(tmp_path, **layer)
    assert plain.chain == watched.chain
    assert plain.content != watched.content
    assert plain.key != watched.key


def test_groups_change_the_run_and_not_the_stage(tmp_path):
    """The groups change only the test."""
    plain, grouped = runs(tmp_path)["baseline", 0], runs(tmp_path, groups={"many": ">50"})["baseline", 0]
    assert plain.chain == grouped.chain
    assert plain.key != grouped.key


CHANGES_OF_THE_STAGE = [
    {"batch_size": 64},
    {"epochs": 7},
    {"drop_last": False},
    {"deterministic": True},
    {"sampler": "class_balanced"},
    {"mix": "mixup"},
    {"mix": {"name": "mixup", "lambda": 0.4}},
    {"smoothing": "label_smoothing"},
    {"loss": "focal"},
    {"loss": {"name": "focal", "gamma": 1.0}},
    {"loss": "weighted_cross_entropy"},
    {"loss": "class_balanced"},
    {"optimizer": {"name": "adamw", "lr": 2e-3}},
    {"optimizer": "sgd"},
    {"schedule": "constant"},
    {"schedule": {"name": "cosine", "final_lr": 1e-6}},
    {"augment": ["hflip"]},
    {"augment": ["hflip", "vflip"]},
    {"augment": ["vflip", "hflip"]},
    {"model": {"name": "test_efficientnet", "image_size": 64}},
    {"model": {"name": "test_efficientnet", "image_size": 32, "drop_path": 0.1}},
    {"model": {"name": "test_resnet", "image_size": 32}},
    {"stages": [{"epochs": "1/2"}, {"epochs": "1/2", "train": "head"}]},
    {"stages": [{"epochs": "1/2"}, {"epochs": "1/2", "train": "head", "head": "new"}]},
    {"stages": [{"epochs": "1/2"}, {"epochs": "1/2", "train": "head", "backbone": "train"}]},
    {"stages": [{"epochs": "1/2"}, {"epochs": "1/2", "restart": ["optimizer"]}]},
    {"average": "ema", "stages": [{"epochs": "1/2"}, {"epochs": "1/2", "start": "average"}]},
]


def test_every_setting_changes_the_stage(tmp_path):
    """Each change of the training gives the last stage a key of its own."""
    last_keys = [baseline(tmp_path, **layer).chain[-1] for layer in [{}, *CHANGES_OF_THE_STAGE]]
    assert len(set(last_keys)) == len(last_keys)


def test_settings_at_their_defaults_are_left_out(tmp_path):
    """A default that is written out changes no key, and a new setting with a default would not either."""
    written = {"optimizer": {"name": "adamw", "lr": 1e-3}, "augment": [], "sampler": "shuffle", "batch_size": 128, "drop_last": True}
    assert baseline(tmp_path).key == baseline(tmp_path, **written).key

    class Old(Technique):
        name: Literal["x"] = "x"
        strength: float = 1.0

    class New(Technique):
        name: Literal["x"] = "x"
        strength: float = 1.0
        colour: str = "red"

    assert keys.non_default_settings(Old()) == keys.non_default_settings(New()) == {"name": "x"}
    assert keys.non_default_settings(New(strength=2.0)) == {"name": "x", "strength": 2.0}
    assert keys.non_default_settings(New(colour="blue")) == {"name": "x", "colour": "blue"}
    assert keys.non_default_settings(Focal(weights="inverse")) == {"name": "focal", "weights": "inverse"}


def test_paths_do_not_count(tmp_path):
    """Data and weights count by their digests, not by their paths."""
    relative = baseline(tmp_path, data={"name": "cifar10", "root": "near"}, model={**BASE["model"], "weights": "a.safetensors"})
    absolute = baseline(tmp_path, data={"name": "cifar10", "root": "/far"}, model={**BASE["model"], "weights": "b.safetensors"})
    assert relative.key == absolute.key


TAIL = {"mix": {"name": "cutmix", "only": "tail"}}


@pytest.mark.parametrize(
    ("layer", "changed_context", "changes_key"),
    [
        ({}, context(source(digest="other")), True),
        ({}, context(weights="other"), True),
        ({}, context(device="cuda NVIDIA"), True),
        ({}, context(precision="bf16"), True),
        ({}, context(tail=(9,)), False),
        (TAIL, context(tail=(9,)), True),
        ({}, context(source(counts=(5,) * 10)), False),
        ({}, context(), False),
    ],
)
def test_the_context(tmp_path, layer, changed_context, changes_key):
    """Data, weights, precision and device are in the key; the tail classes only if the mixing uses them."""
    plain, changed = baseline(tmp_path, **layer), baseline(tmp_path, changed_context, **layer)
    assert (plain.chain != changed.chain, plain.key != changed.key) == (changes_key, changes_key)


def test_content_does_not_depend_on_the_environment(tmp_path):
    """Another device changes the key and not the content, by which stale results are recognised."""
    plain, on_cuda = baseline(tmp_path), baseline(tmp_path, context(device="cuda NVIDIA"))
    assert plain.content == on_cuda.content
    assert plain.content != baseline(tmp_path, context(source(digest="other"))).content


def test_seeds(tmp_path):
    """Each seed has stages of its own."""
    runs_by_seed = runs(tmp_path, seeds=(0, 1, 2))
    assert len({run.chain[-1] for run in runs_by_seed.values()}) == 3


def test_versions(tmp_path, monkeypatch):
    """Another version of a library that computes changes every key and no content."""
    plain = baseline(tmp_path)
    monkeypatch.setattr(keys, "versions", lambda: {"torch": "0.0"})
    changed = baseline(tmp_path)
    assert (plain.chain[0] != changed.chain[0], plain.content == changed.content) == (True, True)


def test_which_versions():
    """The versions of the libraries that compute a step; that of a missing package is `none`."""
    assert set(keys.versions()) == {"torch", "torchvision", "timm"}
    assert code_module.package_version("no-such-package-at-all") == "none"


@pytest.mark.parametrize(("technique", "changes_key"), [(CrossEntropy, True), (Focal, False)])
def test_code_of_a_technique(tmp_path, monkeypatch, technique, changes_key):
    """Other code of a technique changes the keys of the stages that use it, and of no other."""
    plain = baseline(tmp_path)
    keys.code_digest.cache_clear()
    class_code = code_module.class_code
    monkeypatch.setattr(keys, "class_code", lambda cls: class_code(cls) + ("edited" if cls is technique else ""))
    changed = baseline(tmp_path)
    assert (plain.chain != changed.chain, plain.content == changed.content) == (changes_key, True)


def test_code_of_an_average(tmp_path, monkeypatch):
    """Other code makes another average: it is computed anew, and so is a training that starts from it."""
    section = {"base": {**BASE, "average": {"name": "ema", "decay": 0.9}}}
    stages = [{"epochs": 3}, {"epochs": 3, "start": "average"}]
    plain = runs(tmp_path, None, **section, variants={"v": {"stages": stages}})
    name, class_code = average_id(Ema(decay=0.9), 0), code_module.class_code
    keys.code_digest.cache_clear()
    monkeypatch.setattr(keys, "class_code", lambda cls: class_code(cls) + ("edited" if cls is Ema else ""))
    changed = runs(tmp_path, None, **section, variants={"v": {"stages": stages}})
    assert average_id(Ema(decay=0.9), 0) != name
    assert plain["v", 0].chain[-1] != changed["v", 0].chain[-1]
    assert plain["baseline", 0].chain == changed["baseline", 0].chain


@pytest.mark.parametrize("module", keys.STEP_MODULES)
def test_code_of_a_step(tmp_path, monkeypatch, module):
    """Other code of a module that computes steps changes the key."""
    plain = baseline(tmp_path)
    keys.code_digest.cache_clear()
    module_code = code_module.module_code
    monkeypatch.setattr(keys, "module_code", lambda name: module_code(name) + ("edited" if name == module else ""))
    assert plain.chain != baseline(tmp_path).chain


# --- code ----------------------------------------------------------------------------------------------------------------------


LOSS = '''
"""A module."""
from ablation.errors import ConfigError
from ablation.techniques.made_help import helper as help_out, unused
from ablation.techniques.technique import Technique

SCALE, OFFSET = 2.0, 1.0
LIMIT: float = 3.0
OTHER = 5.0

def double(x):
    """Twice x."""
    return help_out(x) * SCALE + OFFSET

def stranger(x):
    return x

class Base:
    def shift(self, x):
        return x + LIMIT

class Loss(Base):
    """A loss."""

    def __call__(self, x):
        """What it costs."""
        if x < 0:
            raise ConfigError("", "negative")
        return double(self.shift(x))

class Another:
    def __call__(self, x):
        return x
'''
HELP = '''
"""What helps."""
from ablation.techniques.made_deep import deep

def helper(x):
    """Helps."""
    return deep(x)

def unused(x):
    return x
'''
DEEP = "def deep(x):\n    return -x\n"


@pytest.fixture
def code(tmp_path, monkeypatch):
    """The code of the class Loss, or of another, in modules of ours with these texts."""
    import ablation.techniques

    monkeypatch.setattr(ablation.techniques, "__path__", [*ablation.techniques.__path__, str(tmp_path)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    names = ("made_deep", "made_help", "made_loss")

    def clear():
        for name in names:
            sys.modules.pop(f"ablation.techniques.{name}", None)
        importlib.invalidate_caches()
        linecache.clearcache()
        for function in CACHES:
            function.cache_clear()

    def code_of(loss=LOSS, help_=HELP, deep=DEEP, name="Loss"):
        clear()
        for module, text in zip(names, (deep, help_, loss), strict=True):
            (tmp_path / f"{module}.py").write_text(text)
        return code_module.class_code(getattr(importlib.import_module("ablation.techniques.made_loss"), name))

    yield code_of
    clear()
    for name in names:
        ablation.techniques.__dict__.pop(name, None)


@pytest.mark.parametrize(
    "edit",
    [
        ('"""A loss."""', '"""The best loss there is."""'),
        ('"""What it costs."""', '"""Its cost."""'),
        ('"""A module."""', '"""Another module."""'),
        ('        """What it costs."""\n', ""),
        ("return x + LIMIT", "return x + LIMIT  # the limit is from the paper"),
        ("return x + LIMIT", "return (x +\n                LIMIT)"),
        ("OTHER = 5.0", "OTHER = 6.0"),
        ("def stranger(x):\n    return x", "def stranger(x):\n    return 2 * x"),
        ("class Another:\n    def __call__(self, x):\n        return x", "class Another:\n    pass"),
        ("class Another:", "class OneMore:\n    pass\n\nclass Another:"),
    ],
)
def test_edits_that_do_not_count(code, edit):
    """Docstrings, comments, formatting, and what the class does not use do not change its code."""
    assert LOSS.count(edit[0]) == 1
    assert code() == code(LOSS.replace(*edit))


@pytest.mark.parametrize(
    "edit",
    [
        ("return double(self.shift(x))", "return double(self.shift(x)) + 1"),
        ("x < 0", "x <= 0"),
        ("* SCALE + OFFSET", "* SCALE - OFFSET"),
        ("SCALE, OFFSET = 2.0, 1.0", "SCALE, OFFSET = 3.0, 1.0"),
        ("LIMIT: float = 3.0", "LIMIT: float = 4.0"),
        ("return x + LIMIT", "return x - LIMIT"),
        ("class Loss(Base):", "class Loss:"),
    ],
)
def test_edits_that_count(code, edit):
    """Everything that the class uses is its code, including its base, functions and constants."""
    assert LOSS.count(edit[0]) == 1
    assert code() != code(LOSS.replace(*edit))


def test_code_in_other_modules(code):
    """What is imported from other modules of ours counts, also under another name and indirectly; what is not used does not."""
    plain = code()
    assert plain != code(help_=HELP.replace("return deep(x)", "return deep(x) + 1"))
    assert plain != code(deep="def deep(x):\n    return x\n")
    assert plain == code(help_=HELP.replace("def unused(x):\n    return x", "def unused(x):\n    return 0"))
    assert plain == code(help_=HELP.replace('"""Helps."""', '"""Is of help."""'))


def test_docstrings_are_dropped_once(code):
    """A text that is second in a body is not a docstring, and is kept when the module is read again."""
    twice = LOSS.replace('"""What it costs."""', '"""What it costs."""\n        "no docstring"')
    assert code(twice) != code()
    assert code(twice) == code(twice)


def test_messages_and_other_families_do_not_count():
    """The code of messages and of the base class of all techniques is in no technique's code."""
    names = itertools.chain.from_iterable(json.loads(code_module.class_code(technique)) for technique in (CrossEntropy, Focal))
    assert {name.rpartition(".")[0] for name in names} == {"ablation.techniques.losses"}


def test_digest():
    """A digest depends on content and not on the order of keys."""
    assert keys.digest({"a": 1, "b": [2, 3]}) == keys.digest({"b": [2, 3], "a": 1})
    assert keys.digest({"a": 1}) != keys.digest({"a": 2})
    assert len(keys.digest([])) == 32


# What a job imports that computes nothing: settings and names, and files as they are written.
NOT_IN_KEYS = {"training.settings", "training.work", "training.checkpoints"}


def test_every_module_that_a_job_computes_by_is_in_its_keys():
    """What a job's module imports of training, directly or not, is in the keys of steps or of tests, but for a few that compute nothing."""
    modules, waiting = set(), ["tasks.images.run"]
    while waiting:
        module = waiting.pop()
        if module not in modules:
            modules.add(module)
            waiting += [name for name in ours(imports(module, at_once=False)) if name.startswith("training.")]
    counted = {name.removeprefix("ablation.") for name in (*keys.STEP_MODULES, *keys.TEST_MODULES)}
    assert all(name in MODULES for name in counted)
    assert modules - counted == NOT_IN_KEYS


# --- what is kept beside the keys -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ({"name": "csv", "file": "images.csv"}, "images.csv"),
        ({"name": "lists", "train_list": "train.txt", "root": "photos"}, "train.txt"),
        ({"name": "npz", "file": "all.npz"}, "all.npz"),
        ({"name": "folder", "root": "photos"}, "photos"),
        ({"name": "digits"}, "digits"),
    ],
)
def test_the_store_is_told_where_the_images_are(tmp_path, data, place):
    """The file that lists or holds them, else their folder, else the name of the data set."""
    for name in ("images.csv", "train.txt", "all.npz"):
        (tmp_path / name).touch()
    (tmp_path / "photos").mkdir()
    loaded = study(tmp_path, base={**BASE, "data": data})
    assert planner(loaded).dataset(loaded.arms[0]) == (data["name"], place)


def test_a_speed_is_that_of_a_kind_of_step(tmp_path):
    """A captured, a compiled and a deterministic step take other times; a loss takes none worth a word."""

    def speed(**base):
        return keys.speed_key(study(tmp_path, base={**BASE, **base}).arms[0].stages[0], "cuda NVIDIA H100")

    assert len({speed(), speed(deterministic=True), speed(compile=True), speed(batch_size=7)}) == 4
    assert speed(loss="focal") == speed()
