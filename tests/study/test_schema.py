"""The JSON schema of the file."""

import json
import re
from pathlib import Path

import pytest
import yaml

from ablation.study.config import StudyFile
from ablation.study.schema import study_schema
from ablation.study.task import load_task
from ablation.tasks.own.schema import section_schemas
from ablation.techniques.technique import FAMILIES, family
from ablation.training.settings import Settings, StageOptions
from tests.studies import BASE

ROOT = Path(__file__).parents[2]
SCHEMA = study_schema(load_task().schema, section_schemas())
TYPES = {"object": dict, "array": list, "string": str, "number": (int, float), "integer": int, "boolean": bool, "null": type(None)}
WORDS = {"then", "else", "title", "description", "default", "$schema", "$defs"}


def followed(reference):
    """What a reference names."""
    here = SCHEMA
    for part in reference.removeprefix("#/").split("/"):
        here = here[part]
    return here


def is_of(kind, value):
    return isinstance(value, TYPES[kind]) and not (isinstance(value, bool) and kind in ("number", "integer"))


def fits_object(schema, value):
    """Whether a mapping has the keys and values that the schema wants."""
    properties, patterns, rest = schema.get("properties", {}), schema.get("patternProperties", {}), schema.get("additionalProperties", {})
    for name, part in value.items():
        schemas = [properties[name]] if name in properties else []
        schemas += [property_schema for pattern, property_schema in patterns.items() if re.search(pattern, name)]
        if not schemas and rest is False:
            return False
        if not all(fits(property_schema, part) for property_schema in schemas or [rest]):
            return False
    return all(name in value for name in schema.get("required", ())) and len(value) >= schema.get("minProperties", 0)


def fits_list(schema, value):
    """Whether a list has the parts that the schema wants."""
    heads = schema.get("prefixItems", [])
    parts = [*zip(heads, value, strict=False), *((schema.get("items", {}), part) for part in value[len(heads) :])]
    is_long_enough = schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
    is_unique = not schema.get("uniqueItems") or len(set(map(json.dumps, value))) == len(value)
    return is_long_enough and is_unique and all(fits(item_schema, part) for item_schema, part in parts)


CHECKS = {
    "$ref": lambda schema, value: fits(followed(schema["$ref"]), value),
    "anyOf": lambda schema, value: any(fits(one, value) for one in schema["anyOf"]),
    "if": lambda schema, value: fits(schema["then" if fits(schema["if"], value) else "else"], value),
    "type": lambda schema, value: is_of(schema["type"], value),
    "enum": lambda schema, value: value in schema["enum"],
    "const": lambda schema, value: value == schema["const"],
    "pattern": lambda schema, value: not isinstance(value, str) or re.search(schema["pattern"], value) is not None,
    "minimum": lambda schema, value: not is_of("number", value) or value >= schema["minimum"],
    "maximum": lambda schema, value: not is_of("number", value) or value <= schema["maximum"],
    "exclusiveMinimum": lambda schema, value: not is_of("number", value) or value > schema["exclusiveMinimum"],
    "exclusiveMaximum": lambda schema, value: not is_of("number", value) or value < schema["exclusiveMaximum"],
    **dict.fromkeys(
        ("properties", "patternProperties", "additionalProperties", "required", "minProperties"),
        lambda schema, value: not isinstance(value, dict) or fits_object(schema, value),
    ),
    **dict.fromkeys(
        ("items", "prefixItems", "minItems", "maxItems", "uniqueItems"),
        lambda schema, value: not isinstance(value, list) or fits_list(schema, value),
    ),
}


def fits(schema, value):
    """Whether a value is valid under a schema, by the words of JSON Schema that ours uses."""
    if isinstance(schema, bool):
        return schema
    unknown = set(schema) - set(CHECKS) - WORDS
    assert not unknown, unknown
    return all(CHECKS[word](schema, value) for word in schema if word in CHECKS)


def subschemas(value):
    """Every mapping in the schema, with its place."""
    waiting = [((), value)]
    while waiting:
        place, here = waiting.pop()
        if isinstance(here, dict):
            yield place, here
        parts = here.items() if isinstance(here, dict) else enumerate(here) if isinstance(here, list) else ()
        waiting += [((*place, name), part) for name, part in parts]


# --- the schema itself ------------------------------------------------------------------------------------------------------------


def test_it_is_json():
    """The schema is plain JSON, and says what it is."""
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert SCHEMA["description"] == StudyFile.__doc__


def test_every_reference_leads_somewhere():
    """Each $ref names a part of the schema, and each pattern is a regular expression."""
    for _, here in subschemas(SCHEMA):
        if isinstance(here.get("$ref"), str):
            assert isinstance(followed(here["$ref"]), dict)
        if isinstance(here.get("pattern"), str):
            re.compile(here["pattern"])
        if isinstance(here.get("patternProperties"), dict):
            assert all(re.compile(pattern) for pattern in here["patternProperties"])


def test_every_key_of_the_file_is_there():
    """The schema has the keys that the file may have, and those of settings and stages."""
    assert set(SCHEMA["properties"]) == {*StudyFile.model_fields, "extends"}
    assert set(SCHEMA["$defs"]["settings"]["properties"]) == set(Settings.model_fields)
    assert set(StageOptions.model_fields) < set(SCHEMA["$defs"]["stages"]["items"]["properties"])


def test_descriptions():
    """Every key of the file, setting, stage option and technique says what it is."""
    stage = SCHEMA["$defs"]["stages"]["items"]["properties"]
    described = [
        *SCHEMA["properties"].values(),
        *SCHEMA["$defs"]["settings"]["properties"].values(),
        *(stage[name] for name in StageOptions.model_fields),
    ]
    assert all(len(one["description"]) > 10 for one in described)
    text = json.dumps(SCHEMA)
    for name in FAMILIES:
        for technique in family(name).techniques.values():
            assert json.dumps(str(technique.__doc__).strip().splitlines()[0])[1:-1] in text, technique


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("longtail", "class_weights", "models")])
def test_every_name_of_a_family_is_offered(name):
    """An editor can offer each technique and short form by its name."""
    offered = [here["enum"] for _, here in subschemas(SCHEMA["$defs"]["settings"]) if isinstance(here.get("enum"), list)]
    assert family(name).names in offered


# --- files under it ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted([ROOT / "experiments.yaml", *(ROOT / "studies").rglob("*.yaml")]), ids=lambda path: path.name)
def test_our_studies(path):
    """The studies that come with the package are valid."""
    from ablation.study.yamlfile import read

    assert fits(SCHEMA, read(path))


def file(**sections):
    return {"study": "s", "seeds": [0], "base": BASE, **sections}


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"base": {"data": "digits", "model": "resnet18"}},
        {"base": {**BASE, "optimizer.lr": 0.1, "stages": [{"epochs": "2/3"}, {"epochs": 1, "train": "head", "loss.gamma": 1}]}},
        {
            "base": {
                **BASE,
                "smoothing": {"epsilon": 0.1},
                "loss": {"name": "class_balanced", "beta": 0.9},
                "mix": {"name": "mixup", "lambda": 0.4},
            }
        },
        {"base": {**BASE, "augment": ["hflip", {"name": "affine", "scale": [0.8, 1.2]}]}},
        {"groups": {"many": ">100", "few": ["truck", 3]}},
        {"margin": 2},
        {"metric": "auto"},
        {"metric": "test/kappa"},
        {"metric": "recall/cat"},
        {"ladder": {"baseline": None, "a": {"published": {"A": 84.2}, "label": "A", "note": "n", "stages.1.loss": "focal"}}},
        {"variants": {"a": {"of": "b", "loss": "focal"}}},
        {"sweeps": {"s": {"of": "a", "tta": "hflip", "over": {"epochs": [1, 2], "loss": {"f": {"loss": "focal", "label": "F"}}}}}},
        {"conditions": {"c": {"arms": ["*"], "average": "none"}}},
        {"grid": {"of": "a", "rungs": ["b"]}, "drop_one": ["a"], "add_one": ["b"]},
        {"profiles": {"p": {"seeds": [1], "groups": "thirds", "metric": "auroc", "base": {"epochs": 1}}}},
    ],
)
def test_right_files(sections):
    """What the file may say is valid."""
    assert fits(SCHEMA, file(**sections))


def test_a_file_that_extends_needs_no_base():
    """A file that extends another may leave base and seeds to it."""
    assert fits(SCHEMA, {"extends": "experiments.yaml"})
    assert not fits(SCHEMA, {"study": "s"})


@pytest.mark.parametrize(
    "sections",
    [
        {"laddr": {}},
        {"seeds": []},
        {"seeds": [0, 0]},
        {"seeds": [-1]},
        {"seeds": [0.5]},
        {"seeds": [True]},
        {"study": "a/b"},
        {"keep": "best"},
        {"margin": 0},
        {"metric": "macrof1"},
        {"metric": "recall/"},
        {"metric": 3},
        {"margin": "0.5"},
        {"groups": "halves"},
        {"groups": {"mny": ">1"}},
        {"groups": {"many": 100}},
        {"ladder": {}},
        {"base": {**BASE, "colour": 1}},
        {"base": {**BASE, "colour.x": 1}},
        {"base": {**BASE, "loss": "focl"}},
        {"base": {**BASE, "loss": {"name": "focal", "gama": 1}}},
        {"base": {**BASE, "smoothing": {"epsilon": 1.5}}},
        {"base": {**BASE, "smoothing": {"epsilon": "0.1"}}},
        {"base": {**BASE, "augment": "hflip"}},
        {"base": {**BASE, "epochs": 0}},
        {"base": {**BASE, "epochs": "2/3"}},
        {"base": {**BASE, "label": "x"}},
        {"base": {**BASE, "model": {"image_size": 32}}},
        {"ladder": {"a": {"of": "b"}}},
        {"ladder": {"a": {"published": {"A": "84"}}}},
        {"variants": {"a": {"arms": ["b"]}}},
        {"variants": {"a": {"stages": [{"epochs": 1, "data": "digits"}]}}},
        {"variants": {"a": {"stages": [{"epochs": "two"}]}}},
        {"variants": {"a": {"stages": []}}},
        {"sweeps": {"s": {"of": "a"}}},
        {"sweeps": {"s": {"over": {}}}},
        {"sweeps": {"s": {"label": "S", "over": {"epochs": [1]}}}},
        {"conditions": {"c": {"of": "a"}}},
        {"profiles": {"p": {"study": "x"}}},
        {"grid": {"rung": []}},
    ],
)
def test_wrong_files(sections):
    """An unknown key, a wrong name, type or range is not valid."""
    assert not fits(SCHEMA, file(**sections))


OWN = {
    "study": "s",
    "seeds": [0],
    "task": "my_module:train",
    "metrics": {"test/mae": {"better": "lower"}},
    "ladder": {"baseline": None, "deep": {"max_depth": 12, "anything.at_all": [1, {"x": 2}], "label": "Deep"}},
    "sweeps": {"rate": {"of": "deep", "over": {"lr": [0.1, 0.2]}, "choose": "val/mae", "max_depth": 3}},
    "conditions": {"big": {"arms": ["*"], "rows": 1000}},
    "profiles": {"try": {"seeds": [1], "metric": "mae", "base": {"rows": 10}}},
    "drop_one": ["deep"],
    "grid": {"rungs": ["deep"]},
}
COMMAND = {"command": "python train.py --seed {seed}", "code": ["*.py"], "data": ["a", {"path": "b", "by": "listing"}], "timeout": "12h"}


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"base": {"lr": 0.1, "loss": "any", "model": None}},
        {"task": {**COMMAND, "env": {"A": 1}, "gpus": 0, "resumes": True, "grace": 5, "classes": ["a", "b"]}},
        {"metrics": {"mae": {"better": "lower", "unit": "m", "margin": 0.1, "from": "mae ([0-9.]+)", "title": "error"}}},
        {"metrics": {"mae": {"better": "lower", "from": {"file": "log.json", "at": "eval.mae"}}}, "curves": {"step": "epoch (.*)"}},
        {"metric": "test/mae"},
    ],
)
def test_right_files_of_ones_own_code(sections):
    """Beside a task any name may be a setting."""
    assert fits(SCHEMA, OWN | sections)


@pytest.mark.parametrize(
    "sections",
    [
        {"task": 3},
        {"task": {**COMMAND, "comand": "x"}},
        {"task": {**COMMAND, "threads": 0}},
        {"task": {**COMMAND, "gpus": 2}},
        {"metrics": {}},
        {"metrics": {"mae": {}}},
        {"metrics": {"mae": {"better": "less"}}},
        {"metrics": {"mae": {"better": "lower", "margn": 1}}},
        {"metrics": {"mae": {"better": "lower", "margin": 0}}},
        {"curves": {"step": 3}},
        {"groups": "thirds"},
        {"margin": 1},
        {"keep": "none"},
        {"ladder": {}},
        {"ladder": {"a": 3}},
        {"ladder": {"a": {"label": 3}}},
        {"sweeps": {"s": {"lr": 3}}},
        {"profiles": {"p": {"study": "x"}}},
        {"seeds": [0, 0]},
    ],
)
def test_wrong_files_of_ones_own_code(sections):
    """What the file declares is checked, and what only images have is refused."""
    assert not fits(SCHEMA, OWN | sections)


def test_what_own_code_declares_needs_a_task():
    """Of images, metrics and curves are known already."""
    assert not fits(SCHEMA, file(metrics={"mae": {"better": "lower"}}))
    assert not fits(SCHEMA, file(curves={"loss": "loss (.*)"}))


def test_the_command_prints_it(capsys):
    """`ablate schema` prints the schema."""
    from ablation.commands import techniques as looking

    assert looking.schema() == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA


def test_yaml_reads_as_the_schema_expects():
    """The studies' files read alike in our reader and in plain YAML, but for numbers such as 1e-4."""
    from ablation.study.yamlfile import read

    ours = read(ROOT / "experiments.yaml")
    plain = yaml.safe_load((ROOT / "experiments.yaml").read_text(encoding="utf-8"))
    assert ours["base"]["optimizer"].pop("lr") == float(plain["base"]["optimizer"].pop("lr")) == 1e-4
    assert ours["ladder"] == plain["ladder"]
