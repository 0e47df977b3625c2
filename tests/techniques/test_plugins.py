"""Techniques of a user's own: by module:Class where code is allowed, and by the entry points of installed packages."""

import importlib
import json
import math
import multiprocessing
import pickle
import re
import sys
import tomllib
from pathlib import Path

import pytest
import torch
import yaml

from ablation.errors import ConfigError
from ablation.study.resolving import load_study
from ablation.study.schema import study_schema
from ablation.study.task import load_task
from ablation.system import code as code_module
from ablation.tasks.images import keys
from ablation.techniques import technique as registry
from ablation.techniques.contracts import check
from ablation.techniques.technique import allow_code, class_path, dump, family, make
from tests.studies import BASE, planner, study
from tests.study.test_schema import SCHEMA, fits
from tests.tiny import Planned

DOCUMENT = (Path(__file__).parents[2] / "docs" / "own-technique.md").read_text(encoding="utf-8")
POLY = {"name": "my_losses:Poly1", "epsilon": 1.0}
CACHES = (
    registry.plugins,
    registry._registered_entry_points,
    code_module.class_code,
    keys.code_digest,
    code_module._defined,
    code_module._tree,
    code_module._counts,
)


def blocks():
    """The document's files: the text of each by its name, which is in the first line."""
    code_blocks = re.findall(r"^```\w+\n# ([\w.]+)\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
    return {name: f"# {name}\n{text}" for name, text in code_blocks}


@pytest.fixture(autouse=True)
def _own_world(monkeypatch):
    """Permission, search path, modules and what is remembered are as they were after each test."""
    monkeypatch.setattr(registry._PERMISSION, "is_given", False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    forget()
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("my_", "broken_")):
            del sys.modules[name]
    forget()


def forget():
    importlib.invalidate_caches()
    for cached in CACHES:
        cached.cache_clear()


@pytest.fixture
def folder(tmp_path):
    """A folder with the files of the document."""
    for name, text in blocks().items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def install(folder, points, name="my-techniques"):
    """A package whose metadata has these entry points, found as an installed one is."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    groups = [f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in members.items()) for group, members in points.items()]
    (info / "entry_points.txt").write_text("\n".join(groups))
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    forget()


def refusal(spec, family_name="losses"):
    """What a user is told about a form that cannot be resolved."""
    with pytest.raises(ConfigError) as caught:
        make(family_name, spec, "base.loss")
    assert "Traceback" not in str(caught.value)
    return caught.value


# --- the document ----------------------------------------------------------------------------------------------------------------


def test_the_documents_files_are_all_there():
    """The document has the two modules, the study and the package that its text speaks of."""
    assert list(blocks()) == ["my_losses.py", "my_samplers.py", "experiments.yaml", "pyproject.toml"]


@pytest.mark.parametrize(("family_name", "code"), [("losses", "my_losses:Poly1"), ("samplers", "my_samplers:Reversed")])
def test_the_documents_techniques_keep_the_contracts(folder, family_name, code):
    """The classes in the document pass the contracts of their families."""
    allow_code(folder)
    broken = [result for result in check(family_name, code) if not result.passed]
    assert not broken


def test_modules_beside_the_study_come_before_the_current_folder(tmp_path, monkeypatch):
    """Also where `python -m ablation` has put the current folder at the end of the path; both come after what is installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["installed", str(tmp_path)])
    allow_code(tmp_path / "study")
    assert sys.path == ["installed", str(tmp_path / "study"), str(tmp_path)]


def test_the_documents_loss_is_poly_1(folder):
    """Poly-1 is the cross-entropy plus epsilon times one minus the label's probability, by plain arithmetic."""
    allow_code(folder)
    logits = [[2.0, 0.5, -1.0], [0.0, 0.3, 0.1]]
    labels = [0, 2]
    costs = []
    for row, label in zip(logits, labels, strict=True):
        p = math.exp(row[label]) / sum(map(math.exp, row))
        costs.append(-math.log(p) + 1.5 * (1 - p))
    loss = make("losses", {"name": "my_losses:Poly1", "epsilon": 1.5})
    result = loss(torch.tensor(logits), torch.eye(3)[labels], torch.tensor([5.0, 3.0, 1.0]))
    assert float(result) == pytest.approx(sum(costs) / 2, rel=1e-6)
    assert float(result) != pytest.approx(float(make("losses", "cross_entropy")(torch.tensor(logits), torch.eye(3)[labels], torch.ones(3))))


def test_the_documents_sampler_is_reversed(folder):
    """The reversed sampler's chances are proportional to one over the counts."""
    allow_code(folder)
    p_C = make("samplers", "my_samplers:Reversed").probabilities_C(torch.tensor([4, 2, 1, 0]), 0, 10)
    assert p_C.tolist() == pytest.approx([1 / 7, 2 / 7, 4 / 7, 0])


def test_the_documents_study_runs(folder):
    """The document's study is planned and one of its arms trained, under the names that the file uses."""
    allow_code(folder)
    arms = {arm.name: arm for arm in load_study(folder / "experiments.yaml").arms}
    assert arms["poly1"].settings.loss.name == "my_losses:Poly1"
    assert arms["reversed"].change == {"sampler.name": ("shuffle", "my_samplers:Reversed")}
    planned = Planned(folder / "experiments.yaml", folder / "mlruns")
    planned.carry_out()
    assert planned.result("poly1").is_dir()


def test_the_documents_package_registers_them(folder):
    """With the document's entry points installed, the plain names are known, and need no permission."""
    points = tomllib.loads(blocks()["pyproject.toml"])["project"]["entry-points"]
    install(folder, points)
    assert make("losses", {"name": "poly1", "epsilon": 1.0}).epsilon == 1.0
    assert make("samplers", "reversed").name == "reversed"


# --- by module:Class -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spec", "path"), [("my_losses:Poly1", "base.loss"), (POLY, "base.loss.name")])
def test_code_needs_permission(folder, spec, path):
    """Without permission a file that names code is refused at its place, and nothing is imported."""
    sys.path.append(str(folder))
    error = refusal(spec)
    assert (error.path, error.problem) == (path, "names code (my_losses:Poly1); --allow-code lets it be imported")
    assert "my_losses" not in sys.modules


def test_the_dumped_settings_make_it_again(folder):
    """The name stays as the file writes it, so that what is dumped, printed as YAML and read again is the same technique."""
    allow_code(folder)
    loss = make("losses", POLY)
    dumped = loss.model_dump(by_alias=True)
    assert dumped == {"name": "my_losses:Poly1", "epsilon": 1.0, "weights": {"name": "none"}}
    assert make("losses", yaml.safe_load(yaml.safe_dump(dumped))) == loss
    assert make("losses", loss) is loss
    assert hash(make("losses", dumped)) == hash(loss)
    with pytest.raises(ConfigError, match="expected a sampler"):
        make("samplers", loss)


def test_settings_are_laid_over_it(folder):
    """A dotted path changes one of its fields; class weights and what else is nested resolve as in any loss."""
    allow_code(folder)
    resolved = study(folder, base={**BASE, "loss": "my_losses:Poly1"}, variants={"v": {"loss.epsilon": 3.0, "loss.weights": "inverse"}})
    loss = {arm.name: arm for arm in resolved.arms}["v"].settings.loss
    assert (loss.name, loss.epsilon, loss.weights.name) == ("my_losses:Poly1", 3.0, "inverse")
    assert dump(resolved.arms[0].settings)["loss"]["name"] == "my_losses:Poly1"


def test_its_fields_are_checked(folder):
    """An unknown field and a value out of range are told as for a built-in technique."""
    allow_code(folder)
    assert refusal({**POLY, "epsilom": 1}).path == "base.loss.epsilom"
    assert refusal({**POLY, "epsilon": -2.0}).path == "base.loss.epsilon"


def name_and_loss(pickled):
    loss = pickle.loads(pickled)
    return loss.name, float(loss(torch.zeros(1, 2), torch.eye(2)[:1], torch.ones(2)))


def test_it_reaches_a_spawned_process(folder):
    """A worker process unpickles it without being told where it lies, since the search path is passed on."""
    allow_code(folder)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        name, value = pool.apply(name_and_loss, (pickle.dumps(make("losses", POLY)),))
    assert (name, value) == ("my_losses:Poly1", pytest.approx(math.log(2) + 0.5))


def test_folders_are_searched_last(folder):
    """A file of the user's that is called as an installed module does not take its place, and no folder is added twice."""
    (folder / "textwrap.py").write_text("raise RuntimeError\n")
    before = list(sys.path)
    allow_code(folder)
    allow_code(folder)
    assert sys.path[: len(before)] == before
    assert sys.path.count(str(folder.resolve())) == 1


def write(folder, text):
    (folder / "broken_losses.py").write_text(text)
    allow_code(folder)
    return refusal("broken_losses:Own")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "broken_losses:Own was not found in {folder}/broken_losses.py; expected a class there."),
        ("class Owm: pass\n", "expected a class there. Did you mean 'Owm'?"),
        (
            "x = 1\nimport no_such_module\n",
            "cannot be imported: ModuleNotFoundError: No module named 'no_such_module' (broken_losses.py, line 2)",
        ),
        ("def broken(:\n", "broken_losses:Own cannot be imported: SyntaxError"),
        ("raise ValueError('two\\nlines')\n", "cannot be imported: ValueError: two (broken_losses.py, line 1)"),
        ("Own = 3\n", "broken_losses:Own is 3; expected a class that inherits from ablation.techniques.technique.Technique"),
        ("class Own: pass\n", "expected a class that inherits from ablation.techniques.technique.Technique"),
        ("from ablation.techniques.technique import Technique as Own\n", "has no name; expected a field such as name"),
        ("from ablation.techniques.samplers import Shuffle as Own\n", "is no loss: it has no advance, losses_BC"),
        (
            'from typing import Literal\nfrom ablation.techniques.losses import Loss\nclass Own(Loss):\n    name: Literal["own"] = "own"\n',
            "is no loss: it has no losses_BC; expected what every loss has (see ablation.techniques.losses:Loss)",
        ),
    ],
)
def test_a_module_that_does_not_do(tmp_path, text, words):
    """Whatever is wrong with the user's module is one message at the place in the file that names it."""
    error = write(tmp_path, text)
    assert error.path == "base.loss"
    assert words.format(folder=tmp_path) in error.problem


def test_a_module_that_is_not_there(tmp_path):
    """A module that cannot be found is told with where it is looked for."""
    allow_code(tmp_path)
    assert "expected a module that is installed, beside the study's file or here" in refusal("my_nothing:Own").problem


@pytest.mark.parametrize("loss", ["my_losses:Poly1", "my_package.losses:Poly1", POLY])
def test_the_schema_admits_code(loss):
    """An editor takes module:Class, alone and with fields, where a technique may stand."""
    assert fits(SCHEMA, {"seeds": [0], "base": {**BASE, "loss": loss}})
    assert not fits(SCHEMA, {"seeds": [0], "base": {**BASE, "loss": "my_losses:"}})


# --- entry points ----------------------------------------------------------------------------------------------------------------


def test_a_plug_in_is_a_name_like_others(folder):
    """An installed technique is listed, resolved, dumped and described by its name; it is imported when it is used."""
    install(folder, {"ablation.losses": {"poly1": "my_losses:Poly1"}})
    assert "poly1" in family("losses").names
    assert "poly1" in refusal("poly2").problem
    assert make("losses", "focal").name == "focal"
    assert "my_losses" not in sys.modules
    loss = make("losses", {"name": "poly1", "epsilon": 1.0})
    assert class_path(type(loss)) == "my_losses:Poly1"
    assert loss.model_dump()["name"] == "poly1"
    assert make("losses", loss.model_dump()) == make("losses", loss) == loss
    assert "-ln p_c + epsilon * (1 - p_c)" in json.dumps(study_schema(load_task().schema, {}))
    with pytest.raises(ConfigError, match="expected a sampler"):
        make("samplers", loss)


def test_a_broken_plug_in_breaks_nothing_else(folder):
    """A plug-in that cannot be imported is one sentence where it is used, and nothing to those that do not use it."""
    (folder / "broken_losses.py").write_text("import no_such_module\n")
    install(folder, {"ablation.losses": {"poly1": "my_losses:Poly1", "own": "broken_losses:Own"}})
    assert make("losses", "poly1").name == "poly1"
    assert make("losses", "focal").name == "focal"
    problem = refusal({"name": "own", "x": 1})
    assert problem.path == "base.loss.name"
    assert "the plug-in 'own' (broken_losses:Own of my-techniques 1.0) cannot be imported: ModuleNotFoundError" in problem.problem


@pytest.mark.parametrize(
    ("family_name", "name", "origins"),
    [
        ("losses", "focal", "the built-in ablation.techniques.losses:Focal and of my_losses:Poly1 of my-techniques 1.0"),
        ("losses", "class_balanced", "a built-in short form and of my_losses:Poly1"),
        ("models", "test_efficientnet", "a model of ablation.techniques.models:TimmModel and of my_losses:Poly1"),
    ],
)
def test_a_name_of_a_built_in(folder, family_name, name, origins):
    """A plug-in under the name of a built-in is an error that names both, for the studies that use the name."""
    install(folder, {f"ablation.{family_name}": {name: "my_losses:Poly1"}})
    assert origins in refusal(name, family_name).problem
    assert make("losses", "cross_entropy").name == "cross_entropy"


def test_a_name_of_two_plug_ins(folder):
    """Two packages with one name are an error that names both."""
    install(folder, {"ablation.losses": {"poly1": "my_losses:Poly1"}})
    install(folder, {"ablation.losses": {"poly1": "other:Poly1"}}, name="other-techniques")
    problem = refusal("poly1").problem
    assert "my_losses:Poly1 of my-techniques 1.0" in problem
    assert "other:Poly1 of other-techniques 1.0" in problem


def test_a_plug_in_under_another_name(folder):
    """The entry point and the class must agree on the name, or what is dumped could not be resolved."""
    install(folder, {"ablation.losses": {"poly": "my_losses:Poly1"}})
    assert "calls itself 'poly1'; expected one name for both" in refusal("poly").problem


def test_a_plug_in_of_another_family(folder):
    """A sampler that is registered as a loss is told so."""
    install(folder, {"ablation.losses": {"reversed": "my_samplers:Reversed"}})
    assert "my_samplers:Reversed is no loss: it has no" in refusal("reversed").problem


# --- keys ------------------------------------------------------------------------------------------------------------------------


def chain(folder, **base):
    """The key of the one stage of a study with this base, the user's modules imported anew."""
    from ablation.planning.plan import make_plan
    from ablation.planning.states import RecordedState

    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]
    forget()
    written = study(folder, base={**BASE, **base}, seeds=(0,))
    (run,) = make_plan(written, (0,), ["baseline"], planner(written), RecordedState()).runs
    return run.chain[-1], run.content


EDITS = [
    (("(1 - log_p_BC.exp())", "(1 - log_p_BC.exp()) ** 2"), True),
    (("= 2.0\n", "= 3.0\n"), True),
    (('"""What each sample would cost if its label were c, for every c."""', '"""Costs."""'), False),
    (("    epsilon:", "    # a comment\n    epsilon:"), False),
    (("\nclass Poly1", "\nclass Another:\n    pass\n\n\nclass Poly1"), False),
]


@pytest.mark.parametrize(("edit", "counts"), EDITS)
def test_edits_of_the_users_code(folder, edit, counts):
    """The stage's key changes when the user's class computes something else, and its content does not."""
    allow_code(folder)
    code = (folder / "my_losses.py").read_text()
    assert code.count(edit[0]) == 1
    before = chain(folder, loss=POLY)
    other = chain(folder, sampler="my_samplers:Reversed")
    (folder / "my_losses.py").write_text(code.replace(*edit))
    after = chain(folder, loss=POLY)
    assert ((before[0] != after[0]), before[1] == after[1]) == (counts, True)
    assert chain(folder, sampler="my_samplers:Reversed") == other


LOSS = """
from typing import Literal

from ablation.techniques.losses import CrossEntropy
{imports}

class Own(CrossEntropy):
    name: Literal["own"] = "own"

    def losses_BC(self, logits_BC, prior_C, state=None):
        return super().losses_BC(logits_BC, prior_C) * {used}


if __name__ == "__main__":
    print(Own())
"""
HELP = "def factor():\n    return 2.0\n\n\ndef unused():\n    return 1.0\n"


@pytest.mark.parametrize(
    ("imports", "used"),
    [
        ("from my_help import factor", "factor()"),
        ("from my_help import factor as f, unused", "f()"),
        ("import my_help", "my_help.factor()"),
        ("import my_help as h", "h.factor()"),
        ("from my_help import *", "factor()"),
        ("try:\n    from my_help import factor\nexcept ImportError:\n    raise", "factor()"),
        ("TABLE = []\nfrom my_help import factor\nTABLE.append(factor())", "TABLE[0]"),
        ("", "__import__('importlib').import_module('my_help').factor() if False else self.factor()\n\n    def factor(self):\n"
             "        from my_help import factor\n        return factor()"),
    ],
)  # fmt: skip
def test_what_the_users_modules_import_counts(tmp_path, imports, used):
    """However a class comes by a function of another of the user's modules, that function is part of its code."""
    (tmp_path / "my_loss.py").write_text(LOSS.format(imports=imports, used=used))
    (tmp_path / "my_help.py").write_text(HELP)
    allow_code(tmp_path)
    before = chain(tmp_path, loss="my_loss:Own")
    (tmp_path / "my_help.py").write_text(HELP.replace("2.0", "2.5"))
    assert chain(tmp_path, loss="my_loss:Own") != before


@pytest.mark.parametrize(
    "imports", ["from .help import factor", "from my_package.help import factor", "from . import help\nfactor = help.factor"]
)
def test_what_a_users_package_imports_counts(tmp_path, imports):
    """Within a package, relative imports count as absolute ones do."""
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "loss.py").write_text(LOSS.format(imports=imports, used="factor()"))
    (package / "help.py").write_text(HELP)
    allow_code(tmp_path)
    before = chain(tmp_path, loss="my_package.loss:Own")
    (package / "help.py").write_text(HELP.replace("2.0", "2.5"))
    assert chain(tmp_path, loss="my_package.loss:Own") != before


def test_what_does_not_count(tmp_path):
    """What a file does when it is run by itself, and functions that the class does not use, are no part of its code."""
    (tmp_path / "my_loss.py").write_text(LOSS.format(imports="from my_help import factor", used="factor()"))
    (tmp_path / "my_help.py").write_text(HELP)
    allow_code(tmp_path)
    before = chain(tmp_path, loss="my_loss:Own")
    (tmp_path / "my_help.py").write_text(HELP.replace("1.0", "1.5"))
    text = (tmp_path / "my_loss.py").read_text()
    (tmp_path / "my_loss.py").write_text(text.replace("print(Own())", "print(Own(), Own())"))
    assert chain(tmp_path, loss="my_loss:Own") == before


def test_ours_that_a_users_class_builds_on_counts(folder):
    """The code of a user's class contains that of the class of ours that it inherits from, and none of torch's."""
    allow_code(folder)
    code = json.loads(code_module.class_code(type(make("losses", POLY))))
    assert {"my_losses.Poly1", "ablation.techniques.losses.Loss", "ablation.techniques.losses.average"} < set(code)
    assert not [name for name in code if name.startswith(("torch", "pydantic", "typing"))]


def test_a_class_without_a_file():
    """A class that is written in no file is an error in one sentence, since its changes could not be seen."""
    written = type("Made", (), {"__module__": "my_nowhere"})
    with pytest.raises(ConfigError, match=r"the code of my_nowhere:Made was not found.*; expected a class in a file of Python code"):
        code_module.class_code(written)
