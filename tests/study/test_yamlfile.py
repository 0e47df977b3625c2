"""YAML as plain data."""

import contextlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablation.errors import ConfigError
from ablation.study.yamlfile import MAX_BYTES, MAX_DEPTH, parse, read

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(8)
)
DEEP_BY_ALIASES = "".join(f"a{i}: &a{i} {'[' * 30}{f'*a{i - 1}' if i else 1}{']' * 30}\n" for i in range(3))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("3.", 3.0),
        ("12", 12),
        ("+12", 12),
        ("010", 10),
        ("0x1f", 31),
        ("2/3", "2/3"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2020-01-01", "2020-01-01"),
        ("yes", "yes"),
        ("off", "off"),
        ("none", "none"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("# nothing", None),
        ("'1'", "1"),
        (".inf", math.inf),
        ("[1, a, 2.5]", [1, "a", 2.5]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
    ],
)
def test_scalars(text, value):
    """Numbers, booleans and nothing are those of YAML 1.2; the rest is text."""
    parsed = parse(text, "f")
    assert parsed == value
    assert type(parsed) is type(value)


def test_not_a_number():
    """`.nan` is a float, which models may then refuse."""
    assert math.isnan(parse(".nan", "f"))


def test_keys_are_texts_as_written():
    """A key keeps the letters that the file has, whatever they would mean as a value."""
    assert list(parse("{1: a, 0.10: b, 1e-4: c, true: d, null: e}", "f")) == ["1", "0.10", "1e-4", "true", "null"]


def test_anchors_and_merges():
    """An anchor may be used again, and a merged mapping gives way to the keys beside it."""
    assert parse("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a", "f") == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": {"x": 1, "y": 2},
    }
    assert parse("{k: &a {<<: &b {x: 1}, x: 2}, <<: *a}", "f") == {"x": 2, "k": {"x": 2}}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3", 3, "the key 'a' is given twice (first in line 1)"),
        ("a:\n  b: 1\n  b: 1", 3, "'b' is given twice"),
        ("{a: 1, 'a': 2}", 1, "'a' is given twice"),
        ("x: 1\n? [a, b]\n: 1", 2, "a list or a mapping as a key"),
        ("? {a: 1}\n: 1", 1, "a list or a mapping as a key"),
        ("a: !!python/object/apply:os.system [ls]", 1, "the tag '!!python/object/apply:os.system'"),
        ("a: 1\nb: !!bool maybe", 2, "the tag '!!bool'"),
        ("!!timestamp x", 1, "the tag '!!timestamp'"),
        ("a: !mine 3", 1, "the tag '!mine'"),
        ("a: b: c", 1, "is not YAML"),
        ("a: [1, 2", 1, "is not YAML"),
        ("a: *b", 1, "is not YAML"),
        ("a\n---\nb", 2, "is not YAML"),
        ("<<: 5", 1, "is not YAML"),
        ("%YAML 2.0\n--- a", 1, "is not YAML"),
        ('a: "\\uD800"', 1, "expected text in UTF-8"),
    ],
)
def test_what_is_refused(text, line, words):
    """What is no plain data is refused, with its line."""
    with pytest.raises(ConfigError) as error:
        parse(text, "file.yaml")
    assert error.value.path == f"file.yaml, line {line}"
    assert words in error.value.problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "aliases are written out"),
        (DEEP_BY_ALIASES, "nested deeper"),
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), "nested deeper"),
        ("[" * 20_000, "nested deeper"),
        ("- " * 20_000, "nested deeper"),
        ("a: &a [*a]", "an anchor holds itself"),
        ("a: &a {b: *a}", "an anchor holds itself"),
        ("\x00", "is not YAML"),
        ('"\\U99999999"', "cannot be read"),
        ("9" * 5000, "cannot be read"),
    ],
)
def test_attacks(text, words):
    """Bombs, circles, depth and letters that are none end in one sentence."""
    with pytest.raises(ConfigError, match=words) as error:
        parse(text, "file.yaml")
    assert error.value.path == "file.yaml"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds nothing; expected a mapping"),
        (b"# only a comment", "holds nothing"),
        (b"[1, 2]", "holds a list; expected a mapping"),
        (b"word", "holds a single value; expected a mapping"),
        (b"3", "holds a single value; expected a mapping"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "is not text in UTF-8"),
        (b"a: 1\n" + b"#" * MAX_BYTES, "bytes; expected a study's file"),
    ],
)
def test_files_that_are_no_study(tmp_path, content, words):
    """A file that holds no mapping is refused, and said what it is."""
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        read(path)


def test_missing_file(tmp_path):
    """A missing file is told with its nearest neighbour."""
    (tmp_path / "experiments.yaml").write_text("a: 1")
    with pytest.raises(ConfigError, match=r"there is no such file.*Did you mean 'experiments.yaml'\?"):
        read(tmp_path / "experiment.yaml")
    with pytest.raises(ConfigError, match="there is no such file"):
        read(tmp_path / "no" / "folder.yaml")
    with pytest.raises(ConfigError, match="is a folder; expected a study's YAML file"):
        read(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path / ("x" * 5000))


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.text(alphabet=st.sampled_from("ab1.-:{}[],&*!|>'\"%@#?\\ \n\t<~é\x07\ud800"), max_size=40))
def test_any_text(text):
    """Any text either is plain data or is refused in our own words."""
    with contextlib.suppress(ConfigError):
        parse(text, "f")
