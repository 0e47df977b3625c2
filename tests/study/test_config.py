"""The file's form: its settings, layers, lengths and errors."""

import contextlib
import itertools
import re
from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ablation.errors import AblateError, ConfigError
from ablation.study.config import extend, load
from ablation.study.overrides import PartialArm, apply_overrides, canonical
from ablation.study.resolving import load_study
from ablation.tasks.images.schema import SCHEMA
from ablation.training.settings import Settings, length
from tests.studies import BASE, arms, study, write

ROOT = Path(__file__).parents[2]
EXPERIMENTS = (ROOT / "experiments.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="module", autouse=True)
def _only_shipped_models():
    """An unknown model is looked for in timm itself, which takes seconds to import; here the names that it ships are enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ablation.techniques.models._is_registered", lambda name: False)
        yield


def draft(**own):
    return PartialArm(canonical({**BASE, **own}, "base", SCHEMA))


# --- settings and layers --------------------------------------------------------------------------------------------------


def test_defaults():
    """Everything but data and model has the default that the documentation names."""
    resolved = canonical({"data": "digits", "model": "test_efficientnet"}, "base", SCHEMA)
    names = {name: value["name"] if isinstance(value, dict) else value for name, value in resolved.items()}
    assert names == {
        "data": "digits",
        "model": "test_efficientnet",
        "classifier": "linear",
        "augment": (),
        "sampler": "shuffle",
        "mix": "none",
        "smoothing": "none",
        "loss": "cross_entropy",
        "optimizer": "adamw",
        "schedule": "cosine",
        "average": "none",
        "select": "last",
        "tta": "none",
        "posthoc": "none",
        "epochs": 30,
        "batch_size": 128,
        "drop_last": True,
        "precision": "auto",
        "deterministic": False,
        "compile": False,
    }


def test_a_name_replaces_the_whole_technique():
    """A setting by its plain name replaces the technique with all its fields; a bare name has the defaults."""
    below = draft(optimizer={"name": "adamw", "lr": 0.5, "weight_decay": 0.3})
    assert apply_overrides(below, {"optimizer": {"lr": 0.1, "name": "adamw"}}, "x", SCHEMA).settings["optimizer"]["weight_decay"] == 0.01
    assert apply_overrides(below, {"optimizer": "adamw"}, "x", SCHEMA).settings["optimizer"]["lr"] == 1e-3


def test_a_dotted_path_changes_one_field():
    """A dotted path changes one field of what is resolved so far, at any depth and within lists."""
    below = draft(loss="class_balanced_focal", augment=["hflip", {"name": "affine", "scale": [0.5, 1.5]}])
    resolved = apply_overrides(
        below, {"loss.gamma": 1.0, "loss.weights.beta": 0.9, "augment.1.scale.0": 0.7, "augment.0.probability": 0.1}, "x", SCHEMA
    ).settings
    assert resolved["loss"] == {"name": "focal", "gamma": 1.0, "form": "softmax", "weights": {"name": "effective_number", "beta": 0.9}}
    assert resolved["augment"][1]["scale"] == (0.7, 1.5)
    assert resolved["augment"][0]["probability"] == 0.1
    assert below.settings["loss"]["gamma"] == 2.0, "the layer below is left as it is"


@pytest.mark.parametrize("turn", [1, -1])
def test_the_order_of_keys_says_nothing(turn):
    """In one layer a technique comes before its fields, in whichever order the file has them."""
    layer = dict([("smoothing", {"epsilon": 0.2}), ("smoothing.spread", "others")][::turn])
    assert apply_overrides(draft(), layer, "x", SCHEMA).settings["smoothing"] == {
        "name": "label_smoothing",
        "epsilon": 0.2,
        "spread": "others",
    }
    stages = dict([("stages.0.optimizer", {"name": "sgd"}), ("stages.0.optimizer.lr", 3.0)][::turn])
    below = PartialArm(draft().settings, ({"epochs": 1},))
    assert apply_overrides(below, stages, "x", SCHEMA).stages == ({"epochs": 1, "optimizer": {"name": "sgd"}, "optimizer.lr": 3.0},)
    assert below.stages == ({"epochs": 1},), "the layer below is left as it is"


@pytest.mark.parametrize(
    ("layer", "path", "words"),
    [
        ({"smothing": "none"}, "x", r"unknown setting 'smothing'.*Did you mean 'smoothing'\?"),
        ({"loss": "focall"}, "x.loss", r"unknown loss 'focall'.*Did you mean 'focal'\?"),
        (
            {"loss": {"name": "focal", "gama": 1}},
            "x.loss.gama",
            r"unknown field 'gama'; expected one of form, gamma.*Did you mean 'gamma'\?",
        ),
        ({"loss": 3}, "x.loss", "found 3; expected a name or a mapping"),
        ({"loss": None}, "x.loss", "found None"),
        ({"loss": ["focal"]}, "x.loss", r"found \['focal'\]"),
        ({"loss": {"gamma": 1.0}}, "x.loss", "the mapping has no name"),
        ({"loss": {"name": ["focal"]}}, "x.loss.name", r"found \['focal'\]"),
        ({"loss": {"name": "focal", "weights": {"name": "effective_number", "beta": 1.0}}}, "x.loss.weights.beta", "found 1.0"),
        ({"smoothing": {"epsilon": 1.5}}, "x.smoothing.epsilon", "found 1.5; expected less than or equal to 1"),
        ({"smoothing.epsilon": 1.5}, "x.smoothing.epsilon", "'none', which has no field 'epsilon'"),
        ({"smoothing": {"epsilon": "0.1"}}, "x.smoothing.epsilon", "found '0.1'; expected a number"),
        ({"smoothing": {"epsilon": True}}, "x.smoothing.epsilon", "found True; expected a number"),
        ({"smoothing": {"epsilon": float("nan")}}, "x.smoothing.epsilon", "found nan; expected"),
        ({"optimizer": {"name": "adamw", "lr": float("inf")}}, "x.optimizer.lr", "found inf; expected"),
        ({"optimizer": {"name": "adamw", "lr": 10**400}}, "x.optimizer.lr", "found 1"),
        ({"epochs": 3.5}, "x.epochs", "found 3.5; expected a whole number"),
        ({"epochs": True}, "x.epochs", "found True; expected a whole number"),
        ({"epochs": "9"}, "x.epochs", "found '9'; expected a whole number"),
        ({"epochs": 0}, "x.epochs", "found 0; expected greater than or equal to 1"),
        ({"drop_last": 1}, "x.drop_last", "found 1; expected true or false"),
        ({"drop_last": "yes"}, "x.drop_last", "found 'yes'; expected true or false"),
        ({"select": "best"}, "x.select", "found 'best'; expected 'last', 'best_on_validation' or 'best_on_test'"),
        ({"augment": "hflip"}, "x.augment", "found 'hflip'; expected a list"),
        ({"augment": {"name": "hflip"}}, "x.augment", "expected a list"),
        ({"augment": ["hflip", "vflop"]}, "x.augment.1", r"Did you mean 'vflip'\?"),
        ({"augment": [{"name": "affine", "scale": [1, 2, 3]}]}, "x.augment.0.scale", r"found \[1, 2, 3\]"),
        ({"augment": [{"name": "affine", "scale": [1, "2"]}]}, "x.augment.0.scale.1", "found '2'"),
        ({"optimizer.lr.x": 1}, "x.optimizer.lr.x", "what is there has no fields"),
        ({"optimizer.beta": 1}, "x.optimizer.beta", r"no field 'beta'.*Did you mean 'betas'\?"),
        ({"optimiser.lr": 1}, "x.optimiser", r"no field 'optimiser'.*Did you mean 'optimizer'\?"),
        ({"augment.0.probability": 1}, "x.augment.0", "expected a number below 0"),
        ({"optimizer..lr": 1}, "x.optimizer.", "no field ''"),
        ({"augment.²": 1}, "x.augment.²", "found '²'"),
        ({f"augment.{'9' * 5000}": 1}, f"x.augment.{'9' * 5000}", "expected a number below 0"),
        ({"stages": []}, "x.stages", r"found \[\]; expected a list of stages"),
        ({"stages": ["a"]}, "x.stages", "expected a list of stages"),
        ({"stages": {"epochs": 1}}, "x.stages", "expected a list of stages"),
        ({"stages.0.loss": "focal"}, "x.stages.0.loss", "there is no stage '0'; the arm has 0"),
        ({"model": {"name": "resnet18", "weights": "a.pth"}}, "x.model.weights", "expected a .safetensors file"),
    ],
)
def test_bad_settings(layer, path, words):
    """Each mistake in a layer names its dotted place, what was found and what was expected, and the nearest name."""
    with pytest.raises(ConfigError, match=words) as error:
        apply_overrides(draft(), layer, "x", SCHEMA)
    assert error.value.path == path


def test_settings_are_frozen():
    """Settings cannot be changed once they are made."""
    made = Settings.model_validate(BASE)
    with pytest.raises(ValueError, match="frozen"):
        made.epochs = 3


# --- lengths ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (1, 1),
        (300, 300),
        ("2/3", Fraction(2, 3)),
        ("4/6", Fraction(2, 3)),
        (0.5, Fraction(1, 2)),
        (1.0, Fraction(1)),
        (" 1/3 ", Fraction(1, 3)),
    ],
)
def test_lengths(written, value):
    """A length is a count, or a fraction of the whole."""
    resolved = length(written)
    assert resolved == value
    assert type(resolved) is type(value)


@pytest.mark.parametrize(
    "written",
    [0, -1, 0.0, 1.5, "3/2", "-1/2", "1/0", "1", "0.5", "a/b", "", "/", True, None, [1], float("nan"), float("inf"), "1" * 5000 + "/2"],
)
def test_what_is_no_length(written):
    """Whatever is no length says what was found and expected."""
    with pytest.raises(ConfigError, match="expected a count of at least 1, or a fraction"):
        length(written)


# --- the file --------------------------------------------------------------------------------------------------------------


def test_the_name_is_the_files_where_it_has_none(tmp_path):
    """Without `study` the study has the name of its file."""
    assert load(write(tmp_path, "digits-3.yaml", study=None)).study == "digits-3"


@pytest.mark.parametrize(
    ("sections", "path", "words"),
    [
        ({"seeds": []}, "seeds", r"found \[\]; expected at least one seed"),
        ({"seeds": None}, "seeds", "is missing"),
        ({"seeds": [1, 1]}, "seeds", "each once"),
        ({"seeds": [-1]}, "seeds", "none below 0"),
        ({"seeds": [2**70]}, "seeds", "expected at least one seed"),
        ({"seeds": [0.5]}, "seeds.0", "found 0.5; expected a whole number"),
        ({"seeds": [True]}, "seeds.0", "found True; expected a whole number"),
        ({"seeds": ["0"]}, "seeds.0", "found '0'; expected a whole number"),
        ({"base": None}, "base", "is missing"),
        ({"base": []}, "base", r"found \[\]; expected a mapping"),
        ({"base": {}}, "base.data", "is missing; expected a data set"),
        ({"base": {"data": "digits"}}, "base.model", "is missing; expected a model"),
        ({"base": {**BASE, "colour": 1}}, "base", "unknown setting 'colour'"),
        ({"base": {**BASE, "label": "x"}}, "base", "unknown setting 'label'"),
        ({"ladder": {}}, "ladder", "is empty; expected at least its first rung"),
        ({"ladder": []}, "ladder", "is empty"),
        ({"ladder": ["cb"]}, "ladder", "expected a mapping"),
        ({"ladder": {"a": 3}}, "ladder.a", "found 3; expected a mapping"),
        ({"laddr": {}}, "laddr", r"unknown field 'laddr'.*Did you mean 'ladder'\?"),
        ({"keep": "best"}, "keep", "found 'best'; expected 'final', 'all' or 'none'"),
        ({"study": "a/b"}, "study", "found 'a/b'; expected at most 100 letters"),
        ({"study": "a" * 101}, "study", "expected at most 100 letters"),
        ({"study": "a\n"}, "study", "expected at most 100 letters"),
        ({"profiles": {"p": {"seeds": []}}}, "profiles.p.seeds", "expected at least one seed"),
        ({"profiles": {"p": {"bases": {}}}}, "profiles.p.bases", r"expected one of base, groups, metric, seeds. Did you mean 'base'\?"),
        ({"profiles": {"a/b": {}}}, "profiles.a/b.[key]", "expected at most 100 letters"),
        ({"sweeps": {"s": {}}}, "sweeps.s.over", "is missing"),
        ({"sweeps": {"s": 3}}, "sweeps.s", "found 3"),
        ({"drop_one": "tta"}, "drop_one", "expected a list"),
        ({"grid": {"rung": []}}, "grid.rung", r"unknown field 'rung'; expected one of of, rungs. Did you mean 'rungs'\?"),
        ({"grid": ["cb"]}, "grid", r"found \['cb'\]; expected a mapping$"),
        ({"extends": 3}, "extends", "found 3; expected another study's file"),
        ({"extends": None, "extend": "x"}, "extend", "unknown field"),
    ],
)
def test_bad_sections(tmp_path, sections, path, words):
    """Each mistake in the file's form names its dotted place, what was found and what was expected."""
    with pytest.raises(ConfigError, match=words) as error:
        study(tmp_path, **sections)
    assert error.value.path == path


def test_repeated_keys(tmp_path):
    """A setting given twice is an error with both lines."""
    path = tmp_path / "study.yaml"
    path.write_text("seeds: [0]\nbase:\n  data: digits\n  data: cifar10\n")
    with pytest.raises(ConfigError, match=r"study.yaml, line 4: the key 'data' is given twice \(first in line 3\)"):
        load(path)


@pytest.mark.parametrize(("written", "expected"), [({}, 0.5), ({"margin": 2}, 2.0), ({"margin": 0.25}, 0.25), ({"margin": 100}, 100.0)])
def test_margin(tmp_path, written, expected):
    """The margin is in points, by default half of one; a profile has the file's."""
    assert study(tmp_path, **written).margin == expected
    assert study(tmp_path, "p", profiles={"p": {}}, **written).margin == expected


@pytest.mark.parametrize("margin", [0, -0.5, 100.1, float("nan"), float("inf"), "0.5", True, [1]])
def test_bad_margins(tmp_path, margin):
    """A margin that is no number of points above 0 is an error."""
    with pytest.raises(ConfigError, match=re.escape(f"margin: found {margin!r}; expected")):
        load(write(tmp_path, margin=margin))


# --- extends -----------------------------------------------------------------------------------------------------------------


def test_extends(tmp_path):
    """Another study's settings are replaced one by one, and its arms are added to."""
    write(
        tmp_path,
        "below.yaml",
        base={**BASE, "optimizer.lr": 0.5, "batch_size": 16},
        study="below",
        ladder={"baseline": {}, "cb": {"sampler": "class_balanced"}},
        variants={"v": {"loss": "focal"}},
        drop_one=["cb"],
        groups={"many": ">100", "few": "<20"},
        margin=1,
    )
    write(
        tmp_path,
        "above.yaml",
        base={"optimizer": {"name": "sgd"}, "epochs": 4},
        study=None,
        seeds=(5,),
        extends="below.yaml",
        ladder={"cb": {"sampler": "class_balanced", "label": "CB"}, "ls": {"smoothing": "label_smoothing"}},
        variants={"w": {"mix": "mixup"}},
        drop_one=["cb", "ls"],
        groups={"many": ["1"]},
    )
    resolved = load_study(tmp_path / "above.yaml")
    assert resolved.name == "below"
    assert resolved.seeds == (5,)
    assert resolved.groups == {"many": ["1"]}
    assert resolved.margin == 1.0
    assert [arm.name for arm in resolved.arms] == ["baseline", "cb", "ls", "v", "w", "cb/without-cb", "ls/without-cb", "ls/without-ls"]
    by_name = {arm.name: arm for arm in resolved.arms}
    base = by_name["baseline"].settings
    assert (base.optimizer.name, base.optimizer.lr, base.epochs, base.batch_size) == ("sgd", 0.1, 4, 16)
    assert by_name["cb"].label == "CB"
    assert resolved.folder == tmp_path


def test_what_is_extended_keeps_its_arms(tmp_path):
    """The arms of the study below resolve as they do in its own file, so that what is done stays done."""
    below = study(tmp_path, ladder={"baseline": {}, "cb": {"sampler": "class_balanced"}})
    write(tmp_path, "above.yaml", base=None, seeds=None, study=None, extends="study.yaml", variants={"v": {"loss": "focal"}})
    above = load_study(tmp_path / "above.yaml")
    assert above.arms[:2] == below.arms
    assert [arm.name for arm in above.arms[2:]] == ["v"]


def test_extend_is_a_pure_merge():
    """A scalar, a list of seeds and a grid replace; lists of rungs are united in order."""
    below = {"seeds": [0, 1], "drop_one": ["a"], "grid": {"of": "a", "rungs": ["b"]}, "keep": "all"}
    above = {"seeds": [2], "drop_one": ["b", "a"], "grid": {"rungs": ["c"]}}
    assert extend(below, above) == {"seeds": [2], "drop_one": ["a", "b"], "grid": {"rungs": ["c"]}, "keep": "all"}
    assert below["drop_one"] == ["a"]


def test_paths_on_an_axis_start_at_the_file_that_has_them(tmp_path):
    """As those of an arm do; the arms keep their names."""
    axis = {"over": {"model.weights": ["a.safetensors", "none"]}}
    write(tmp_path, "below.yaml", sweeps={"w": axis}, variants={"v": {"model.weights": "a.safetensors"}})
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub", "above.yaml", extends="../below.yaml", base={}, variants={"x": {"loss": "focal"}})
    found = {arm.name: arm.settings.model.weights for arm in load_study(tmp_path / "sub" / "above.yaml").arms}
    assert found["w/a.safetensors"] == found["v"]
    assert Path(found["w/a.safetensors"]).resolve() == tmp_path / "a.safetensors"
    assert found["w/none"] == "none"


def test_what_replaces_a_setting_replaces_its_fields():
    """However deep it lies."""
    below = {"base": {"data": "digits", "data.longtail": {"name": "linear", "largest": 30}, "data.longtail.largest": 25, "epochs": 2}}
    above = {"base": {"data.longtail": {"name": "linear", "largest": 100}}}
    assert extend(below, above)["base"] == {"data": "digits", "epochs": 2, "data.longtail": {"name": "linear", "largest": 100}}


@pytest.mark.parametrize("names", [("a", "a"), ("a", "b", "a"), ("a", "b", "c", "b")])
def test_extending_in_a_circle(tmp_path, names):
    """Files that extend each other in a circle are an error."""
    for name, other in itertools.pairwise(names):
        write(tmp_path, f"{name}.yaml", extends=f"{other}.yaml")
    with pytest.raises(ConfigError, match=r"extends: .*\.yaml extends itself by way of"):
        load(tmp_path / "a.yaml")


@pytest.mark.parametrize("other", ["missing.yaml", "", "a\0b", "x" * 5000, ".", "circle.yaml"])
def test_extending_what_is_no_file(tmp_path, other):
    """A path that leads to no file is told in one sentence."""
    (tmp_path / "circle.yaml").symlink_to(tmp_path / "circle.yaml")
    with pytest.raises(ConfigError, match=r"expected a study's YAML file|expected a path"):
        load(write(tmp_path, extends=other))


# --- any file ------------------------------------------------------------------------------------------------------------------


def loads_or_refuses(path, profile=None):
    with contextlib.suppress(AblateError):
        load_study(path, profile)


WORDS = st.sampled_from(
    [
        "base",
        "ladder",
        "stages",
        "epochs",
        "2/3",
        "loss",
        "focal",
        "none",
        "of",
        "over",
        "arms",
        "*",
        "a.b",
        "stages.0.loss",
        "",
        "data",
        "²",
    ]
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 2**70), st.floats(), WORDS)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=8)


def places(value, path=()):
    """Every place in nested data."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield from places(part, (*path, name))


PARSED = yaml.safe_load(EXPERIMENTS)
PARSED["conditions"] = {"warm": {"average": "none", "arms": ["baseline", "views/*"]}}  # three times fewer arms, to be quick
PLACES = [path for path in places(PARSED) if path]


def changed(data, path, value, *, delete=False):
    """The data with another value in one place, or without it."""
    name, *rest = path
    copy = dict(data) if isinstance(data, dict) else list(data)
    if rest:
        copy[name] = changed(data[name], rest, value, delete=delete)
    elif delete:
        del copy[name]
    else:
        copy[name] = value
    return copy


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(PLACES), VALUES, st.booleans())
def test_any_change_of_the_experiments(tmp_path_factory, place, value, delete):
    """The experiments with anything in any place either load or are refused in our own words."""
    if place[-1] == "name" and isinstance(value, list | dict):
        value = str(value)  # names that are no text have a test of their own
    path = tmp_path_factory.mktemp("changed") / "study.yaml"
    path.write_text(yaml.safe_dump(changed(PARSED, place, value, delete=delete)))
    loads_or_refuses(path)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    st.integers(0, len(EXPERIMENTS)),
    st.integers(0, 30),
    st.text(alphabet=st.sampled_from("ab1.-:{}[],&*!|>'\"%#?\n\t <~é\x07"), max_size=6),
)
def test_any_edit_of_the_experiments_text(tmp_path_factory, at, removed, inserted):
    """The experiments' text with any letters cut or put in either loads or is refused in our own words."""
    path = tmp_path_factory.mktemp("edited") / "study.yaml"
    path.write_text(EXPERIMENTS[:at] + inserted + EXPERIMENTS[at + removed :])
    loads_or_refuses(path, "quick")


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(VALUES)
def test_any_data_as_a_file(tmp_path_factory, value):
    """Any data written as YAML either loads or is refused in our own words."""
    path = tmp_path_factory.mktemp("any") / "study.yaml"
    path.write_text(yaml.safe_dump(value))
    loads_or_refuses(path)


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=60))
def test_any_bytes_as_a_file(tmp_path_factory, content):
    """Any bytes either load or are refused in our own words."""
    path = tmp_path_factory.mktemp("bytes") / "study.yaml"
    path.write_bytes(content)
    loads_or_refuses(path)


def test_any_arm_may_be_without_settings(tmp_path):
    """A rung, variant or condition with nothing after its colon reads as one without settings."""
    assert list(arms(tmp_path, ladder={"baseline": None})) == ["baseline"]
    with pytest.raises(ConfigError, match=r"variants.v: changes nothing against 'baseline'"):
        study(tmp_path, variants={"v": None})
