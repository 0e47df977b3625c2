"""What must never happen, whoever wrote the files: code that runs, words that become markup, secrets that are kept, doors that open."""

import ast
import io
import os
import pickle
import re
import stat
import subprocess
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ablation import report
from ablation.cli import ui
from ablation.commands.ui import _reach
from ablation.data import cifar
from ablation.errors import StoreError
from ablation.report.frames import packed
from ablation.tracking.messages import without_secrets
from ablation.tracking.store import Store
from tests.report.studies import LADDER, arm, study
from tests.tiny import write

PACKAGE = Path(__file__).parent.parent / "ablation"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# --- nothing that is read can run --------------------------------------------------------------------------------------------

# Module -> the calls by which it may use pickle: CIFAR's restricted unpickler, and a technique sent to and from this same process.
PICKLERS = {"data/cifar.py": {"Unpickler", "UnpicklingError"}, "techniques/contracts/every_family.py": {"loads", "dumps"}}
FOREIGN = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}


def dotted(node):
    """The name that an expression spells, such as `np.load`, or nothing."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def dangers(tree, path):
    """Every place in a module where something that is read could run."""
    for node in ast.walk(tree):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (f"imports {name}" for name in names if name.partition(".")[0] in FOREIGN and path not in PICKLERS)
        if isinstance(node, ast.Attribute) and dotted(node.value) == "pickle" and node.attr not in PICKLERS.get(path, set()):
            yield f"uses pickle.{node.attr}"
        if isinstance(node, ast.Call):
            yield from _calls(dotted(node.func), {one.arg: one.value for one in node.keywords}, bool(node.args))


def _calls(name, words, has_arguments):
    is_true = {word for word, value in words.items() if getattr(value, "value", None) is True}
    last = name.rpartition(".")[2]
    if name in ("torch.load", "load_state_dict_from_url") and "weights_only" not in is_true:
        yield f"calls {name} without weights_only=True"
    if last in ("load", "read_array", "save", "savez", "savez_compressed") and "allow_pickle" in is_true:
        yield f"calls {name} with allow_pickle=True"
    if name in ("torch.save", "pandas.read_pickle", "pd.read_pickle") or last == "to_pickle":
        yield f"calls {name}"
    if name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"):
        yield f"calls {name}"
    if name in ("eval", "exec", "compile", "__import__", "os.system", "os.popen") and has_arguments:
        yield f"calls {name}"
    if last in ("extractall", "extract", "unpack_archive"):
        yield f"calls {name}, which writes where an archive says"
    if "shell" in is_true:
        yield f"calls {name} with shell=True"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_no_module_runs_what_it_reads(path):
    """No pickle, no unsafe YAML, no shell, no eval, no archive unpacked by its own names; the two exceptions are restricted."""
    assert list(dangers(ast.parse(path.read_text(encoding="utf-8")), path.relative_to(PACKAGE).as_posix())) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from joblib import load", "torch.load(f)", "torch.load(f, weights_only=False)", "np.load(f, allow_pickle=True)",
        "yaml.load(f, Loader)", "eval(text)", "subprocess.run('ls', shell=True)", "archive.extractall(place)", "frame.to_pickle(f)",
    ],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(text):
    """Each danger, written down, is one."""
    assert list(dangers(ast.parse(text), "some.py"))


class Runs:
    """A pickle of this runs a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.system, os.mkdir, subprocess.run, eval, exec, open, getattr, __import__])
def test_cifars_unpickler_runs_nothing(tmp_path, function):
    """A malicious batch is refused before its function is called."""
    content = pickle.dumps({"data": Runs(function, str(tmp_path / "ran"))})
    with pytest.raises(pickle.UnpicklingError, match="neither an array nor a plain value"):
        cifar.ArrayUnpickler(io.BytesIO(content)).load()
    assert not list(tmp_path.iterdir())


# --- words stay words --------------------------------------------------------------------------------------------------------

NASTY = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\"><svg onload=alert(1)>", "' onmouseover='alert(1)",
    "</title><script>1</script>", "&lt;script&gt;", "[x](javascript:alert(1))", "![x](http://example.org/x.png)",
    "<!-- x -->", "\\input{/etc/passwd}", "$\\write18{ls}$", "%}", "{{ config }}", "| a | b |", "`x`", "javascript:alert(1)",
)  # fmt: skip


class Elements(HTMLParser):
    """Names of elements, and all their attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


def hostile():
    """A study in which everything that a user names is meant as markup: study, arms, labels, notes, classes, reasons, published reports."""
    fours = [NASTY[i : i + 4] for i in range(0, len(NASTY), 4)]
    arms = [arm(name, "baseline", label=label, note=note, published={report: 50.0}) for name, label, note, report in fours]
    arms += [arm(f"{name} too", "baseline", label=label, note=note, published={report: 50.0}) for report, note, label, name in fours]
    recorded = study([LADDER[0], *arms], classes=("plane", *NASTY[:9]), images=4)
    recorded.study = recorded.plan["study"] = NASTY[0]
    recorded.plan["groups"] = {"many": ["plane", NASTY[1]], NASTY[2]: [NASTY[3]], "few": list(NASTY[4:9])}
    recorded.plan["notes"], recorded.plan["command"], recorded.plan["file"] = list(NASTY), NASTY[1], NASTY[2]
    return recorded


@pytest.fixture(scope="module")
def documents():
    """Form -> the report of the hostile study, and the elements of a harmless one's page."""
    recorded = hostile()
    return {form: report.write(recorded, form) for form in ("html", "markdown", "latex")}, Elements(report.write(study(), "html"))


def test_the_page_has_no_element_of_the_users(documents):
    """As many scripts as without the names, no handler of events, no address outside the page."""
    seen, plain = Elements(documents[0]["html"]), documents[1]
    assert seen.tags.count("script") == plain.tags.count("script")
    assert set(seen.tags) <= {*plain.tags, "code", "em", "strong", "details", "summary"}
    assert not [name for name, _ in seen.attributes if name.startswith("on") and name not in {one for one, _ in plain.attributes}]
    assert not [
        value for name, value in seen.attributes if name in ("href", "src") and not value.startswith(("#", "data:image/", "data:,"))
    ]


def test_the_markdown_has_no_markup_of_the_users(documents):
    """No element, link or picture comes from a name, by the reading of another Markdown parser than the report's own escapes."""
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark").enable("table").parse(documents[0]["markdown"])
    flat = [child for token in tokens for child in (token, *(token.children or ()))]
    raw = Elements("".join(token.content for token in flat if token.type in ("html_block", "html_inline")))
    assert set(raw.tags) <= {"details", "summary"}
    assert raw.attributes == []
    assert not [token for token in flat if token.type == "image" and "example" in str(token.attrGet("src"))]
    assert not [token.attrGet("href") for token in flat if token.type == "link_open" and not str(token.attrGet("href")).startswith("#")]


def test_the_latex_has_no_command_of_the_users(documents):
    """No command of a name's is left one: what would read files or run programs is printed as text."""
    lines = [line for line in documents[0]["latex"].splitlines() if not line.lstrip().startswith("%")]
    assert any("input" in line and "passwd" in line for line in lines)
    assert not [line for line in lines if re.search(r"\\(input|write18)", line)]


# --- archives ----------------------------------------------------------------------------------------------------------------


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            entry = name if isinstance(name, zipfile.ZipInfo) else zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return path


def link(name, target):
    """A member that claims to be a symbolic link."""
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return {entry: target}


@pytest.mark.parametrize(
    "members",
    [
        {"../study.json": "{}"}, {"/study.json": "{}"}, {"..\\study.json": "{}"}, link("study.json", "/etc/passwd"),
        {"study.json": " " * 2**26}, {"study.json": "[" * 10**6}, {"study.json": "9" * 10**6},
    ],
    ids=["upwards", "absolute", "backslashes", "link", "bomb", "nested", "number"],
)  # fmt: skip
def test_a_hostile_archive_is_refused(tmp_path, members):
    """Members elsewhere, links and bombs end in a sentence, and nothing is written or followed."""
    path = zipped(tmp_path / "study.zip", members)
    with pytest.raises(StoreError) as error:
        packed.read(path)
    assert str(path) in str(error.value)
    assert "root:" not in str(error.value)
    assert list(tmp_path.iterdir()) == [path]


def test_names_of_artifacts_stay_inside(tmp_path):
    """Only artifacts of known names are asked for in an archive, so none leads out of it."""
    archive = type("Archive", (), {"path": tmp_path, "bytes_of": lambda self, name: b"x"})()
    frame = packed._as_frame({"order": ["run_id"], "types": {"run_id": "object"}, "values": {"run_id": ["../../up"]}})
    one = packed.Packed("s", {}, frame, (), archive)
    for name in ("../../etc/passwd", "/etc/passwd", "config.yaml/../../x", ""):
        with pytest.raises(StoreError, match="has no"):
            one.artifact("../../up", name)
    assert one.artifact("../../up", "config.yaml").name == "config.yaml"
    assert ".." not in one.artifact("../../up", "config.yaml").parts


# --- doors and secrets -------------------------------------------------------------------------------------------------------


def test_the_page_is_served_to_this_machine_only():
    """Unless another host is named, MLflow's page listens on the loopback address, and what is said tells who can reach it."""
    assert next(option.default for option in ui.params if option.name == "host") == "127.0.0.1"
    assert all("this machine only" in _reach(host) for host in ("127.0.0.1", "localhost", "::1"))
    assert all("whoever reaches that address can read and change the store" in _reach(host) for host in ("0.0.0.0", "::", "192.0.2.1"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("https://ann:secret@example.org/mlflow", "https://...@example.org/mlflow"),
        ("http://secret@example.org:5000: no answer", "http://...@example.org:5000: no answer"),
        ("https://example.org/api?token=secret failed", "https://example.org/api?... failed"),
        ("https://a:secret@b.org/x?key=secret and http://c:secret@d", "https://...@b.org/x?... and http://...@d"),
        ("postgresql://ann:secret@db.example.org/mlflow", "postgresql://...@db.example.org/mlflow"),
        ("mysql+pymysql://ann:secret@db/x?password=secret", "mysql+pymysql://...@db/x?..."),
        ("sqlite:///mlruns/mlflow.db", "sqlite:///mlruns/mlflow.db"),
        ("https://example.org/a@b", "https://example.org/a@b"),
    ],
)
def test_addresses_are_told_without_their_secrets(text, told):
    """Users, passwords and queries of web addresses are dots in messages; the rest stays as it is."""
    assert without_secrets(text) == told


def test_a_store_that_does_not_answer_keeps_its_secret(tmp_path, monkeypatch):
    """The message that a server cannot be reached names it without the password in its address."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:s3cretword@127.0.0.1:9/mlflow?token=s3cretword")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StoreError, match=r"127\.0\.0\.1") as error:
        Store.open(tmp_path)
    assert "s3cretword" not in str(error.value)


SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "WANDB_API_KEY", "HF_TOKEN")


def test_no_secret_lands_in_the_record(folder, ablate, monkeypatch):
    """Keys in the environment and in a git remote's address are in no file of the store, the report or the pack."""
    word = "s3cretw0rd"
    for name in SECRETS:
        monkeypatch.setenv(name, word)
    for command in (
        ["init", "-q"],
        ["remote", "add", "origin", f"https://ann:{word}@example.org/x.git"],
        ["add", "tiny.yaml"],
        ["commit", "-qm", "x"],
    ):
        write(folder)
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *command], cwd=folder, check=True)
    assert ablate("run", "tiny.yaml", "--device", "cpu").status == 0
    assert ablate("report", "tiny.yaml", "--output", "report").status == 0
    assert ablate("pack", "tiny.zip").status == 0
    with zipfile.ZipFile(folder / "tiny.zip") as archive:
        archive.extractall(folder / "unpacked")
    files = [path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts]
    assert len(files) > 20
    assert [path for path in files if word.encode() in path.read_bytes()] == []
