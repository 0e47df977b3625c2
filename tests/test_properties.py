"""What holds for any configuration and for any predictions. N images, C classes."""

import copy
import math
import string

import numpy as np
import pytest
import yaml
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name
from sklearn import metrics as sk

from ablation.errors import ConfigError
from ablation.planning.plan import make_plan
from ablation.planning.states import RecordedState
from ablation.study.resolving import load_study
from ablation.techniques.technique import dump
from ablation.training import evaluation
from tests.studies import planner

SOME = settings(max_examples=40, deadline=None, derandomize=True, database=None)
FEW = settings(max_examples=15, deadline=None, derandomize=True, database=None)

# --- configurations ----------------------------------------------------------------------------------------------------------

LAYER = st.fixed_dictionaries(
    {},
    optional={
        "loss": st.sampled_from(["cross_entropy", "focal", "balanced_softmax", {"name": "focal", "gamma": 3.0}]),
        "mix": st.sampled_from(["none", "mixup", "cutmix", {"name": "mixup", "alpha": 0.4}]),
        "sampler": st.sampled_from(["shuffle", "class_balanced"]),
        "augment": st.lists(st.sampled_from(["hflip", {"name": "affine", "degrees": 5}]), max_size=2),
        "optimizer": st.builds(lambda lr: {"name": "adamw", "lr": lr}, st.floats(1e-6, 1.0)),
        "average": st.sampled_from(["none", {"name": "ema", "decay": 0.9}]),
        "posthoc": st.sampled_from(["none", "logit_adjustment", "tau_norm"]),
        "tta": st.sampled_from(["none", "hflip"]),
        "smoothing": st.sampled_from(["none", {"name": "uniform", "epsilon": 0.1}]),
        "batch_size": st.integers(1, 512),
        "drop_last": st.booleans(),
        "epochs": st.integers(1, 50),
    },
)
NAMES = st.text(alphabet=string.ascii_lowercase + "é猫+-. ", min_size=1, max_size=8).map(str.strip).filter(bool)
BASE = {"data": "digits", "model": {"name": "test_efficientnet", "image_size": 32}}
STUDIES = st.builds(
    lambda base, variants: {
        "study": "s",
        "seeds": [0, 1],
        "base": {**BASE, **base},
        "ladder": {"baseline": {}},
        "variants": {name: layer for name, layer in variants.items() if name != "baseline"},
    },
    LAYER,
    st.dictionaries(NAMES, LAYER.filter(bool), max_size=4),
)


def loaded(folder, document):
    """The study of that document, or None where it is refused."""
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
    try:
        return load_study(path)
    except ConfigError:
        return None


def keys_of(study):
    """The key of every run, by arm and seed."""
    plan = make_plan(
        study, study.seeds, [arm.name for arm in study.arms], planner(study), RecordedState({}), seconds_per_item=lambda _: 1e-3
    )
    return {(run.arm, run.seed): run.key for run in plan.runs}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("studies")


@FEW
@given(document=STUDIES)
def test_what_is_dumped_loads_alike(place, document):
    """A resolved arm, written down with all its defaults and loaded again, is the same arm with the same keys."""
    study = loaded(place, document)
    assume(study is not None)
    written = {arm.name: yaml.safe_load(yaml.safe_dump(dump(arm.settings))) for arm in study.arms}
    again = {}
    for name, base in written.items():
        one = loaded(place, {"study": "s", "seeds": [0, 1], "base": base, "ladder": {name: {}}})
        assert one is not None
        again[name] = one
    for arm in study.arms:
        assert again[arm.name].arms[0].settings == arm.settings
        assert again[arm.name].arms[0].stages == arm.stages
    keys = keys_of(study)
    assert {one: key for name in again for one, key in keys_of(again[name]).items()} == keys


@FEW
@given(document=STUDIES, chance=st.randoms(use_true_random=False))
def test_the_order_of_arms_and_settings_changes_no_key(place, document, chance):
    """Variants and settings may stand in any order in the file: every run keeps its key."""
    study = loaded(place, document)
    assume(study is not None)
    other = copy.deepcopy(document)
    other["variants"] = dict(chance.sample(list(other["variants"].items()), len(other["variants"])))
    other["base"] = dict(chance.sample(list(other["base"].items()), len(other["base"])))
    assert keys_of(loaded(place, other)) == keys_of(study)


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 10**20),
        st.floats(),
        st.sampled_from(["", "none", "focal", "digits", "baseline", "b", "1/3", "猫", "val/accuracy", "*", "../x", "x.py:Y"]),
        st.text(max_size=5),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["name", "of", "epochs", "lr", "a"]), inner, max_size=3)
    ),
    max_leaves=6,
)
SECTIONS = [("study",), ("seeds",), ("base",), ("ladder",), ("variants",), ("sweeps",), ("conditions",), ("profiles",), ("drop_one",)]
SECTIONS += [("add_one",), ("grid",), ("groups",), ("margin",), ("keep",)]
INSIDE = [("base", name) for name in ("data", "model", "loss", "mix", "augment", "optimizer", "schedule", "average", "stages", "epochs")]
INSIDE += [("ladder", "baseline"), ("ladder", "b"), ("variants", "v"), ("sweeps", "w"), ("profiles", "p"), ("groups", "few")]


@settings(max_examples=250, deadline=None, derandomize=True, database=None)
@given(changes=st.lists(st.tuples(st.sampled_from([*SECTIONS, *INSIDE]), VALUES), min_size=1, max_size=3))
def test_any_value_anywhere_is_a_study_or_refused(place, changes):
    """Whatever stands where, the file is a study or is refused in one sentence that names the place."""
    document = {"study": "s", "seeds": [0], "base": dict(BASE), "ladder": {"baseline": {}, "b": {"loss": "focal"}}}
    for path, value in changes:
        inside = document
        for name in path[:-1]:
            if not isinstance(inside.get(name), dict):
                inside[name] = {}
            inside = inside[name]
        inside[path[-1]] = copy.deepcopy(value)
    file = place / "study.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    message = ""
    try:
        assert load_study(file).arms
    except ConfigError as error:
        message = str(error)
        event("refused")
    assert message == message.strip()
    assert "\n" not in message


# --- predictions -------------------------------------------------------------------------------------------------------------


@st.composite
def predictions(draw):
    """Labels_N and scores_NC of a few images and classes; scores are few different ones, so that ties are common."""
    num_classes, num_images = draw(st.integers(1, 6)), draw(st.integers(1, 25))
    labels_N = draw(st.lists(st.integers(0, num_classes - 1), min_size=num_images, max_size=num_images))
    score = st.one_of(st.sampled_from([0.0, 1.0, -1.0, 1e4, -1e4]), st.floats(-50, 50, width=32))
    scores_NC = draw(st.lists(st.lists(score, min_size=num_classes, max_size=num_classes), min_size=num_images, max_size=num_images))
    return np.array(labels_N), np.array(scores_NC, dtype=np.float32)


@SOME
@given(drawn=predictions())
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true", "ignore:A single label was found")  # what is tested here
def test_metrics_equal_those_of_sklearn(drawn):
    """For any labels and scores, ties and one class included, with the first of equal scores as the prediction."""
    labels_N, scores_NC = drawn
    num_classes = scores_NC.shape[1]
    names = tuple(f"class {c}" for c in range(num_classes))
    first_N = np.array([list(row).index(max(row)) for row in scores_NC.tolist()])
    computed = evaluation.metrics(labels_N, scores_NC, names, {"all": tuple(range(num_classes))})
    present = sorted(set(labels_N.tolist()))
    every = {"labels": present, "zero_division": 0}
    assert computed["test/accuracy"] == pytest.approx(sk.accuracy_score(labels_N, first_N))
    assert computed["test/balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels_N, first_N))
    assert computed["test/macro_f1"] == pytest.approx(sk.f1_score(labels_N, first_N, average="macro", **every))
    assert computed["test/all"] == pytest.approx(computed["test/balanced_accuracy"])
    for name, score in (("recall", sk.recall_score), ("precision", sk.precision_score), ("f1", sk.f1_score)):
        np.testing.assert_allclose([computed[f"test/{name}/{names[c]}"] for c in present], score(labels_N, first_N, average=None, **every))
    table = evaluation.confusion(labels_N, first_N, names).to_numpy()
    assert np.array_equal(table, sk.confusion_matrix(labels_N, first_N, labels=range(num_classes)))


@SOME
@given(drawn=predictions())
def test_likelihood_equals_exact_sums(drawn):
    """The negative log-likelihood is the mean of log-sum-exp minus the label's score, summed exactly, and never negative."""
    labels_N, scores_NC = drawn
    rows = [[float(one) for one in row] for row in scores_NC]
    expected = [
        math.log(math.fsum(math.exp(one - max(row)) for one in row)) + max(row) - row[c] for row, c in zip(rows, labels_N, strict=True)
    ]
    computed = evaluation.metrics(labels_N, scores_NC, [str(c) for c in range(scores_NC.shape[1])], {})
    assert computed["test/nll"] == pytest.approx(math.fsum(expected) / len(expected), rel=1e-9, abs=1e-12)
    assert computed["test/nll"] >= 0
    assert 0 <= computed["test/ece"] <= 1 + 1e-9


# --- names -------------------------------------------------------------------------------------------------------------------


@SOME
@given(
    names=st.lists(
        st.one_of(st.text(max_size=12), st.sampled_from(["a/b", "a%b", "a_b", "..", "", "x" * 300, "x" * 299 + "y", "猫"])),
        min_size=1,
        max_size=8,
    )
)
def test_every_class_has_a_metric_of_its_own(names):
    """However classes are called, MLflow takes their metrics' names, and no two share one."""
    slugs = evaluation.slugs(names)
    assert len(set(slugs)) == len(names)
    for slug in slugs:
        for metric in ("test/recall", "validation/precision"):
            _validate_metric_name(f"{metric}/{slug}")
            assert len(f"{metric}/{slug}") <= 250
