"""What a study of one's own training code may set, what it refuses, and how settings reach a command."""

import json
import random
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ablation.errors import ConfigError
from ablation.study.changes import flatten
from ablation.study.resolving import load_study
from ablation.tasks.own.child import converted
from ablation.tasks.own.definition import Definition
from ablation.tasks.own.settings import argv, defaults_of, required_of, schema_of
from ablation.techniques import technique
from ablation.techniques.technique import allow_code, build, dump
from tests.own import write_command, write_function

TYPES = """
from __future__ import annotations

import enum
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Collection, Iterable, Literal, Optional, Sequence

from pydantic import Field

if TYPE_CHECKING:
    from ablation import Run


class Loss(enum.Enum):
    CE = "ce"
    DICE = "dice"


def train(
    run: Run,
    *,
    flag: bool = False,
    count: int = 3,
    rate: float = 1,
    text: str = "a",
    width: int | None = None,
    implicit: int = None,
    kind: Literal["up", "down", 2] = "up",
    loss: Loss = Loss.CE,
    folder: Path = Path("data"),
    sizes: list[int] = [1, 2],
    betas: tuple[float, float] = (0.9, 0.999),
    more: tuple[int, ...] = (),
    options: dict[str, float] = {},
    names: Sequence[str] = ("x",),
    marked: Annotated[int, "a mark"] = 1,
    plain=None,
    untyped=2,
    either: int | str = 1,
    often: Iterable[int] = (1, 2),
    several: Collection[int] = (3,),
    positive: Annotated[int, Field(gt=0)] = 1,
):
    return {}
"""


def of_code(folder, code, reference="own_training:train"):
    """The definition of a function of this code, which may be imported."""
    (folder / "own_training.py").write_text(code, encoding="utf-8")
    allow_code(folder)
    return Definition(folder=folder, function=reference)


def of_command(folder, command):
    """The definition of a command."""
    return Definition(folder=folder, command=tuple(shlex.split(command)))


def resolved(definition, settings, base=None):
    """Settings as an arm has them, in full."""
    return dump(build(schema_of(definition, base or {}), settings))


def study_of_command(folder, command, base, **sections):
    """The resolved study of a command."""
    sections = {"ladder": {"baseline": {}}} | sections
    task = {"command": command, "code": ["script.py"]}
    return load_study(write_command(folder, task=task, base=base, seeds=[0], metrics={"mae": {"better": "lower"}}, **sections))


# --- functions -------------------------------------------------------------------------------------------------------------------


def test_defaults_are_plain_data(tmp_path):
    """Each default comes back as the file could have it."""
    settings = resolved(of_code(tmp_path, TYPES), {})
    assert json.loads(json.dumps(settings)) == settings
    assert settings | {"kind": "up", "loss": "ce", "folder": "data", "betas": [0.9, 0.999], "names": ["x"]} == settings
    assert (settings["width"], settings["implicit"], settings["plain"]) == (None, None, None)
    assert isinstance(settings["rate"], float)


@pytest.mark.parametrize(
    ("name", "value", "plain"),
    [
        ("flag", True, True),
        ("count", 7, 7),
        ("rate", 2, 2.0),
        ("width", 5, 5),
        ("width", None, None),
        ("implicit", 4, 4),
        ("kind", "down", "down"),
        ("kind", 2, 2),
        ("loss", "dice", "dice"),
        ("folder", "x/y", "x/y"),
        ("sizes", [], []),
        ("betas", [0, 1], [0.0, 1.0]),
        ("more", [1, 2, 3], [1, 2, 3]),
        ("options", {"a": 1}, {"a": 1.0}),
        ("names", ["a", "b"], ["a", "b"]),
        ("plain", {"a": [1, None, {"b": "c"}]}, {"a": [1, None, {"b": "c"}]}),
        ("untyped", 9, 9),
        ("either", "x", "x"),
    ],
)
def test_values_of_the_annotated_type_pass(tmp_path, name, value, plain):
    """A value that the annotation allows goes through as plain data of that type."""
    found = resolved(of_code(tmp_path, TYPES), {name: value})[name]
    assert found == plain
    assert type(found) is type(plain)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("flag", 1, "found 1; expected true or false"),
        ("count", True, "found True; expected a whole number"),
        ("count", 1.5, "expected a whole number"),
        ("count", None, "expected a whole number"),
        ("rate", "fast", "found 'fast'; expected a number"),
        ("rate", float("nan"), "expected a number"),
        ("rate", True, "expected a number"),
        ("text", 3, "expected text"),
        ("width", "x", "expected a whole number or null"),
        ("kind", "dwn", "expected one of up, down, 2. Did you mean 'down'?"),
        ("kind", True, "expected one of up, down, 2"),
        ("loss", "dic", "expected one of ce, dice. Did you mean 'dice'?"),
        ("folder", 3, "expected a path"),
        ("sizes", [1, "x"], "expected a list (each item a whole number)"),
        ("sizes", 4, "expected a list"),
        ("betas", [0.9], "expected a list of 2 (a number, a number)"),
        ("options", {"a": "b"}, "expected a mapping (each value a number)"),
        ("plain", {1: 2}, "expected numbers, text, true or false, null"),
        ("plain", object, "expected numbers"),
        ("untyped", 0.5, "expected a whole number"),
        ("either", 0.5, "expected a whole number or text"),
    ],
)
def test_values_of_another_type_are_refused(tmp_path, name, value, words):
    """The message names the setting, what was found and what is expected."""
    with pytest.raises(ConfigError) as error:
        resolved(of_code(tmp_path, TYPES), {name: value})
    assert error.value.path == name
    assert words in error.value.problem


@pytest.mark.parametrize(
    ("signature", "words"),
    [
        ("run, **kwargs", "the parameter **kwargs has no names of its own"),
        ("run, *args", "the parameter *args has no names of its own"),
        ("run, lr, /", "the parameter lr cannot be given by its name"),
        ("", "has no parameter for the run"),
        ("*, lr=1", "expected a first one for the run"),
        ("*runs", "expected a first one for the run"),
        ("run, when: complex = 1j", "found complex as the type of the parameter when; expected bool, int"),
        ("run, when: set[int] = ()", "found set[int] as the type of the parameter when"),
        ("run, x: 'Nowhere' = 1", "the type of the parameter x, Nowhere, cannot be looked up (name 'Nowhere' is not defined)"),
        ("run, x: int = 'a'", "found 'a' as the default of the parameter x; expected a whole number"),
        ("run, x=float('inf')", "found inf as the default of the parameter x; expected a finite number"),
        ("run, x=object", "as the type of the parameter x"),
        ("run, label='a'", "has the parameter label, which means something else in a study; expected another name for it"),
        ("run, seed=0", "has the parameter seed, which means something else in a study; expected run.seed in its place"),
        ("run, stages=1", "has the parameter stages"),
        ("run, name='a'", "has the parameter name"),
    ],
)
def test_parameters_that_no_file_can_set(tmp_path, signature, words):
    """They are refused with the name of the parameter, before anything runs."""
    with pytest.raises(ConfigError) as error:
        schema_of(of_code(tmp_path, f"def train({signature}):\n    return {{}}\n"), {})
    assert error.value.path == "task.function"
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def trian(run): pass\n", "own_training:train was not found in .*expected a function there. Did you mean 'trian'"),
        ("class train: pass\n", "expected a function"),
        ("train = 3\n", "is 3; expected a function"),
        ("async def train(run): pass\n", "expected a function without async"),
        ("def train(run): yield 1\n", "expected a function without async and yield"),
        ("import nowhere_at_all\n", "cannot be imported: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("raise SystemExit(2)\n", "cannot be imported: SystemExit: 2"),
        ("def train(:\n", "cannot be imported: SyntaxError"),
    ],
)
def test_what_is_no_function(tmp_path, code, words):
    """One sentence, whatever the user's module does when it is imported."""
    with pytest.raises(ConfigError, match=words) as error:
        schema_of(of_code(tmp_path, code), {})
    assert error.value.path == "task.function"


def test_code_is_imported_only_where_it_is_allowed(tmp_path, monkeypatch):
    """Without --allow-code the module is not imported."""
    monkeypatch.setattr(technique._PERMISSION, "is_given", False)
    (tmp_path / "own_training.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="--allow-code"):
        schema_of(Definition(folder=tmp_path, function="own_training:train"), {})
    assert not (tmp_path / "imported").exists()


def test_a_module_of_the_same_name_elsewhere_is_not_taken(tmp_path):
    """A file with the name of a module of Python would be imported by a run, and not here."""
    (tmp_path / "wave.py").write_text("def open(run): return {}\n", encoding="utf-8")
    allow_code(tmp_path)
    with pytest.raises(ConfigError, match="expected a name that no other module has"):
        schema_of(Definition(folder=tmp_path, function="wave:open"), {})


def test_decorators_keep_the_signature(tmp_path):
    """A wrapped function has the parameters of the one within."""
    code = """
import functools

def timed(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper

@timed
def train(run, lr: float = 0.1):
    return {}
"""
    assert resolved(of_code(tmp_path, code), {}) == {"lr": 0.1}


def test_any_word_of_python_may_be_a_parameter(tmp_path, recwarn):
    """Attributes of the model itself are no exception."""
    names = ("json", "copy", "schema", "model_config", "model_dump", "check", "why_neutral", "_hidden", "field_0")
    code = f"def train(run, {', '.join(f'{name}=1' for name in names)}):\n    return {{}}\n"
    assert resolved(of_code(tmp_path, code), {"copy": 2, "model_dump": 3}) == {**dict.fromkeys(names, 1), "copy": 2, "model_dump": 3}
    assert not recwarn.list


def test_a_parameter_without_a_default_must_be_in_the_base(tmp_path):
    """Or in the base of the profile that is used."""
    code = "def train(run, lr: float, width: int = 4):\n    return {}\n"
    definition = of_code(tmp_path, code)
    assert required_of(definition) == ("lr",)
    assert defaults_of(definition) == {"width": 4}
    with pytest.raises(ConfigError, match=r"base\.lr: is missing; expected a value, since the function has no default for it"):
        load_study(write_function(tmp_path, code, base={"width": 3}, ladder={"baseline": {}}))
    file = write_function(tmp_path, code, base={}, profiles={"quick": {"base": {"lr": 0.5}}})
    assert dump(load_study(file, "quick").arms[0].settings) == {"lr": 0.5, "width": 4}


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"base": {"lrr": 1.0}}, "base: unknown setting 'lrr'; expected one of fault, lr, width. Did you mean 'lr'?"),
        (
            {"ladder": {"baseline": {}, "a": {"widht": 8}}},
            "ladder.a: unknown setting 'widht'; expected one of fault, lr, width. Did you mean 'width'?",
        ),
        ({"variants": {"a": {"width": "8"}}}, "variants.a.width: found '8'; expected a whole number"),
        (
            {"sweeps": {"s": {"over": {"widht": [1, 2]}}}},
            "sweeps.s.over: unknown setting 'widht'; expected one of fault, lr, width. Did you mean 'width'?",
        ),
        ({"sweeps": {"s": {"over": {"width": [1, 2.5]}}}}, "sweeps.s.over.width: found 2.5; expected a whole number"),
        (
            {"conditions": {"c": {"fualt": "x"}}},
            "conditions.c: unknown setting 'fualt'; expected one of fault, lr, width. Did you mean 'fault'?",
        ),
        ({"variants": {"a": {"width.x": 8}}}, "variants.a.width.x: cannot be set: what is there has no fields (it is 4)"),
        ({"variants": {"a": {"stages": []}}}, "variants.a: unknown setting 'stages'; expected one of fault, lr, width."),
    ],
)
def test_mistakes_in_a_file_are_told_with_their_place(tmp_path, sections, words):
    """Misspelt and mistyped settings anywhere in the file, each with its nearest name."""
    allow_code(tmp_path)
    with pytest.raises(ConfigError) as error:
        load_study(write_function(tmp_path, **sections))
    assert str(error.value) == words


def test_mistakes_of_set_are_told(tmp_path):
    """`--set` is checked as the file is."""
    allow_code(tmp_path)
    file = write_function(tmp_path, ladder={"baseline": {}})
    with pytest.raises(ConfigError, match=r"--set: unknown setting 'widht'; expected one of fault, lr, width\. Did you mean 'width'\?"):
        load_study(file, sets=[("widht", 3)])
    with pytest.raises(ConfigError, match=r"--set\.width: found 'x'; expected a whole number"):
        load_study(file, sets=[("width", "x")])
    assert dump(load_study(file, sets=[("width", 3)]).arms[0].settings)["width"] == 3


# --- commands --------------------------------------------------------------------------------------------------------------------

ALL = "python script.py --seed {seed} {args}"


def test_the_base_of_a_command_is_its_schema(tmp_path):
    """Types come from the values, nested mappings are set by dotted path, and dotted names make mappings."""
    base = {"lr": 0.1, "model": {"width": 3, "act": "relu"}, "optimizer.lr": 0.5, "optimizer.beta": 1}
    arms = {"a": {"model.width": 4, "lr": 1}, "b": {"optimizer.lr": 2}, "c": {"model": {"width": 5, "act": "gelu"}}}
    study = study_of_command(tmp_path, ALL, base, variants=arms)
    found = {arm.name: flatten(dump(arm.settings)) for arm in study.arms}
    plain = {"lr": 0.1, "model.width": 3, "model.act": "relu", "optimizer.beta": 1, "optimizer.lr": 0.5}
    assert found == {
        "baseline": plain,
        "a": plain | {"model.width": 4, "lr": 1.0},
        "b": plain | {"optimizer.lr": 2.0},
        "c": plain | {"model.width": 5, "model.act": "gelu"},
    }
    assert study.arms[1].change == {"lr": (0.1, 1.0), "model.width": (3, 4)}


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ({"a": None}, "base.a: found null; expected a value, since its type is taken from it"),
        ({"a": {}}, "base.a: found {}; expected a value"),
        ({"a": {"b": None}}, "base.a.b: found null; expected a value"),
        ({"a": []}, "base.a: found []; expected a list of values of one type"),
        ({"a": [1, "x"]}, "base.a: found [1, 'x']; expected a list of values of one type"),
        ({"a": [[1], [2]]}, "base.a: found [[1], [2]]; expected a list of values of one type"),
        ({"label": "x"}, "base.label: means something else in a study or its command; expected another name"),
        ({"seed": 1}, "base.seed: means something else"),
        ({"out": "x"}, "base.out: means something else"),
        ({"a b": 1}, "base.a b: is no name of a setting; expected letters, digits, - and _"),
        ({"m": {"a": 1}, "m.b": 1}, "base.m.b: is not in the mapping that base has beside it"),
        ({"m": 1, "m.b": 1}, "base.m.b: is not in the mapping that base has beside it"),
    ],
)
def test_what_a_base_cannot_say(tmp_path, base, words):
    """Values without a type, and words that mean something else."""
    with pytest.raises(ConfigError) as error:
        schema_of(of_command(tmp_path, ALL), base)
    assert str(error.value).startswith(words)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lr": "x"}, "lr: found 'x'; expected a number"),
        ({"n": 1.5}, "n: found 1.5; expected a whole number"),
        ({"n": True}, "n: found True; expected a whole number"),
        ({"sizes": [1, "x"]}, "sizes: found [1, 'x']; expected a list (each item a whole number)"),
        ({"tags": ["-x"]}, "tags: found '-x' in a list, which a command would take for an option"),
        ({"m": {"w": 1}}, "m.deep: is missing; expected a value"),
        ({"m": {"w": 1, "deep": {"x": 1.5}}}, "m.deep.x: found 1.5; expected a whole number"),
        ({"m": {"w": 1, "deep": {"x": 1}, "wd": 3}}, "m.wd: unknown field 'wd'; expected one of deep, w. Did you mean 'w'?"),
        ({"m": 3}, "m: found 3; expected a mapping with w, deep"),
    ],
)
def test_values_of_another_type_than_the_base_has(tmp_path, settings, words):
    """Each is told with its dotted place."""
    base = {"lr": 0.1, "n": 1, "sizes": [1], "tags": ["a"], "m": {"w": 1, "deep": {"x": 1}}}
    with pytest.raises(ConfigError) as error:
        resolved(of_command(tmp_path, ALL), settings, base)
    assert str(error.value).startswith(words)


def test_a_misspelt_nested_name_has_its_nearest(tmp_path):
    """In an arm as well as with --set."""
    base = {"model": {"width": 3}}
    with pytest.raises(
        ConfigError, match=r"variants\.a\.model\.widht: there is no field 'widht'; expected one of width\. Did you mean 'width'"
    ):
        study_of_command(tmp_path, ALL, base, variants={"a": {"model.widht": 4}})
    with pytest.raises(ConfigError, match=r"variants\.a\.modle: there is no field 'modle'; expected one of model\. Did you mean 'model'"):
        study_of_command(tmp_path, ALL, base, variants={"a": {"modle.width": 4}})


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            "python a.py {seed} --lr {lr}",
            "base.width: does not reach the command; expected {width}, {args}, {overrides} or {settings} in it",
        ),
        ("python a.py {seed} {lr} {widht} {args}", "task.command: unknown place in braces 'widht'; expected one of"),
        ("python a.py {seed} x{args}", "task.command: has {args} inside the word 'x{args}'; expected it as a word of its own"),
        ("python a.py {seed} --o={overrides}", "task.command: has {overrides} inside the word"),
    ],
)
def test_every_setting_must_reach_the_command(tmp_path, command, words):
    """And every place must stand for something."""
    with pytest.raises(ConfigError) as error:
        schema_of(of_command(tmp_path, command), {"lr": 0.1, "width": 3})
    assert str(error.value).startswith(words)
    assert "widht" not in words or "Did you mean 'width'?" in str(error.value)


def test_places_are_filled_in_words_that_were_split_before(tmp_path):
    """Values stay one word, lists that are a word of their own become several, and doubled braces stay as they are written."""
    command = "run {seed} --name={name} {name} {sizes} s={sizes} {flag} '{{lr}} {\"a\":{lr}}' {out}/x {checkpoints} {settings} {args}"
    settings = {"name": "a 'b' $(c); d", "sizes": [1, 2], "flag": True, "lr": 1e-05, "rest": "z"}
    words = argv(of_command(tmp_path, command), settings, 7, tmp_path / "out", "cp", "s.json")
    name = settings["name"]
    places = [f"{tmp_path}/out/x", "cp", "s.json", "--rest", "z"]
    assert words == ["run", "7", f"--name={name}", name, "1", "2", "s=[1,2]", "true", '{lr} {"a":1e-05}', *places]


def test_overrides_are_written_as_hydra_reads_them(tmp_path):
    """Text that could be read as something else is quoted."""
    settings = {
        "lr": 0.1,
        "amp": True,
        "sizes": [1, 2],
        "m": {"w": 3},
        "a": "relu",
        "b": "x y",
        "c": "true",
        "d": "it's \\",
        "e": "1",
        "f": "",
    }
    words = argv(of_command(tmp_path, "x {seed} {overrides}"), settings, 0, "o", "c")
    assert words[2:] == ["lr=0.1", "amp=true", "sizes=[1,2]", "m.w=3", "a=relu", "b='x y'", "c='true'", "d='it\\'s \\\\'", "e='1'", "f=''"]


PARSER = """
import argparse, json
p = argparse.ArgumentParser()
p.add_argument("--seed", type=int)
p.add_argument("--n", type=int)
p.add_argument("--lr", type=float)
p.add_argument("--text")
p.add_argument("--amp", action="store_true")
p.add_argument("--sizes", type=int, nargs="*")
p.add_argument("--rates", type=float, nargs="*")
p.add_argument("--tags", nargs="*")
p.add_argument("--model.width", type=int)
p.add_argument("--no-cache", action="store_true")
import sys
rows = [vars(p.parse_args(words)) for words in json.load(sys.stdin)]
print(json.dumps(rows))
"""
TEXTS = ("", " ", "-5", "--lr", "a b", 'it\'s "q"', "$(rm -rf /)", "; ls", "é\n\t", "{lr}", "=", "-", "a=b", "\\", "*")


def test_what_argparse_reads_is_what_was_set(tmp_path):
    """For many settings drawn at random, awkward texts and negative numbers among them."""
    draw = random.Random(0)
    base = {
        "n": 1,
        "lr": 0.1,
        "text": "a",
        "amp": False,
        "sizes": [1],
        "rates": [0.1],
        "tags": ["a"],
        "model": {"width": 1},
        "no-cache": False,
    }
    definition = of_command(tmp_path, ALL)
    model = schema_of(definition, base)
    drawn, lines = [], []
    for seed in range(200):
        settings = {
            "n": draw.randint(-(10**9), 10**9),
            "lr": draw.choice([-1, 1]) * 10 ** draw.uniform(-12, 12),
            "text": draw.choice(TEXTS),
            "amp": draw.random() < 0.5,
            "sizes": [draw.randint(-5, 5) for _ in range(draw.randint(0, 3))],
            "rates": [draw.choice([-1, 1]) * 10 ** draw.uniform(-20, 20) for _ in range(draw.randint(0, 3))],
            "tags": [draw.choice([text for text in TEXTS if not text.startswith("-")]) for _ in range(draw.randint(0, 3))],
            "model": {"width": draw.randint(-5, 5)},
            "no-cache": draw.random() < 0.5,
        }
        lines.append(argv(definition, dump(build(model, settings)), seed, "o", "c")[2:])
        flat = {"seed": seed, **settings, "model.width": settings["model"]["width"], "no_cache": settings["no-cache"]}
        drawn.append({name: value for name, value in flat.items() if name not in ("model", "no-cache")})
    script = tmp_path / "parse.py"
    script.write_text(PARSER, encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], input=json.dumps(lines), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == drawn


def test_settings_can_be_compared_and_hashed(tmp_path):
    """Lists among them do not stand in the way."""
    definition = of_code(tmp_path, TYPES)
    model = schema_of(definition, {})
    one, same, other = (build(model, {"sizes": sizes}) for sizes in ([1], [1], [2]))
    assert (one == same, hash(one) == hash(same), one == other) == (True, True, False)


def test_a_run_calls_the_function_with_its_own_types(tmp_path):
    """Plain data become paths, members of enums and tuples again, also without annotations; None stays where it is the default."""
    definition = of_code(
        tmp_path, TYPES.replace("    plain=None,", '    plain=None,\n    root=Path("r"),\n    pair=(1, 2),\n    member=Loss.CE,')
    )
    plain = resolved(definition, {"loss": "dice", "betas": [0, 1], "member": "dice", "pair": [3, 4], "positive": -3})
    module = sys.modules["own_training"]
    called = converted(module.train, json.loads(json.dumps(plain)))
    assert called["loss"] is called["member"] is module.Loss.DICE
    assert (called["betas"], called["pair"], called["more"]) == ((0.0, 1.0), (3, 4), ())
    assert (called["folder"], called["root"]) == (Path("data"), Path("r"))
    assert (called["implicit"], called["width"], called["plain"], called["kind"]) == (None, None, None, "up")
    assert called["sizes"] == called["often"] == [1, 2]
    assert (called["several"], called["positive"]) == ([3], -3)  # planning checks types, as Python does not even those
    assert type(called["rate"]) is float
