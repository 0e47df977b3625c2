"""The page of all techniques: complete, true to the techniques, committed as it is written, and readable as Markdown."""

import html
import re
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from markdown_it import MarkdownIt
from pydantic import Field

from ablation.errors import ConfigError
from ablation.study import catalogue, yamlfile
from ablation.study.overrides import PartialArm, apply_overrides, canonical
from ablation.tasks.images.schema import SCHEMA
from ablation.techniques import technique
from ablation.techniques.technique import FAMILIES, Nested, Technique, dump, family, make

PAGE = Path(__file__).parents[2] / "docs" / "techniques.md"
KEYS = {
    "losses": "loss",
    "class_weights": "loss.weights",
    "samplers": "sampler",
    "mixing": "mix",
    "smoothing": "smoothing",
    "augmentations": "augment",
    "models": "model",
    "classifiers": "classifier",
    "optimizers": "optimizer",
    "schedules": "schedule",
    "averages": "average",
    "tta": "tta",
    "posthoc": "posthoc",
    "longtail": "data.longtail",
    "data": "data",
}
TECHNIQUES = [(name, one) for name in FAMILIES for one in family(name).built_in]
IDS = [f"{KEYS[name]}-{one.__name__}" for name, one in TECHNIQUES]
SHORTS = [(name, short, form) for name in FAMILIES for short, form in family(name).short_forms.items()]


@pytest.fixture(scope="module")
def page():
    return catalogue.markdown_page()


def test_the_committed_page_is_the_written_one(page):
    """docs/techniques.md is what the docstrings and fields give."""
    assert PAGE.read_text(encoding="utf-8") == page, "run: ablate techniques --format markdown > docs/techniques.md"


def test_keys_are_those_of_the_file():
    """Every family stands where the file has it."""
    assert {name: place.key for name, place in catalogue.places().items()} == KEYS
    assert [name for name, place in catalogue.places().items() if place.many] == ["augmentations"]


@pytest.mark.parametrize(("documented", "what"), [*((one, one.__name__) for _, one in TECHNIQUES), *((form, s) for _, s, form in SHORTS)])
def test_every_technique_says_what_it_is(documented, what):
    """Every technique and short form has a docstring of its own, of at least one full sentence."""
    text = vars(documented).get("__doc__") if isinstance(documented, type) else documented.__doc__
    assert text, what
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    assert all(paragraph.endswith((".", ".)")) for paragraph in paragraphs), what
    assert len(paragraphs[0].split()) > 1, what
    assert not re.search(r"^\s*([-*+]|\d+[.)]) ", text, re.MULTILINE), f"{what} has a list, whose lines the page would join"


def yaml_lines(page):
    return re.findall(r"^```yaml\n(.*)\n```$", page, re.MULTILINE)


def in_the_file(text):
    """The technique that a line of the file sets, laid over a base as an arm is; as plain data."""
    ((key, value),) = yamlfile.parse(text, "techniques.md").items()
    base = PartialArm(canonical({"data": "digits", "model": "test_efficientnet"}, "base", SCHEMA))
    settings = apply_overrides(base, {key: value}, "variants.one", SCHEMA).settings
    for part in key.split("."):
        settings = settings[part]
    return key, settings[0] if key == "augment" else settings, value[0] if key == "augment" else value


def test_every_line_sets_the_defaults(page):
    """Every line of the page loads as a setting of an arm, names all fields, and means the name with what has no default."""
    techniques = {KEYS[name]: name for name in FAMILIES}
    documented = []
    for text in yaml_lines(page):
        key, resolved, written = in_the_file(text)
        written = {"name": written} if isinstance(written, str) else written
        technique_family = family(techniques[key])
        model = technique_family.techniques.get(written["name"], technique_family.any_name)
        required = {field.alias or name for name, field in model.model_fields.items() if field.is_required()}
        shortest = make(techniques[key], {"name": written["name"], **{name: written[name] for name in required}})
        assert written.keys() == {field.alias or name for name, field in model.model_fields.items()}, text
        assert resolved == dump(shortest), text
        assert "..." not in text
        documented.append((techniques[key], model))
    assert documented == TECHNIQUES


@pytest.mark.parametrize(("name", "short", "form"), SHORTS)
def test_short_forms_mean_what_is_written_beside_them(page, name, short, form):
    """A short form's row holds the line that it stands for."""
    (text,) = re.findall(rf"^\| `{short}` \| .* \| `({KEYS[name]}: .*)` \|$", page, re.MULTILINE)
    assert in_the_file(text)[1] == dump(make(name, short))


def test_links_lead_to_headings(page):
    """Every link names one heading of the page, and every technique is linked from the contents."""
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    anchors = [re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert len(set(anchors)) == len(anchors)
    links = re.findall(r"\]\(#([^)]*)\)", page)
    assert set(links) <= set(anchors)
    assert set(anchors) - set(links) == {"techniques"}


def test_the_page_renders_as_it_is_meant(page):
    """Rendered, the page has a heading, a table where there are settings and a line for each technique, and no leftovers."""
    rendered = MarkdownIt("commonmark").enable("table").render(page)
    assert rendered.count("<h3>") == len(TECHNIQUES) + len({name for name, _, _ in SHORTS})
    assert rendered.count("<h2>") == len(FAMILIES)
    assert rendered.count("<table>") == sum(len(kind.model_fields) > 1 for _, kind in TECHNIQUES) + len({name for name, _, _ in SHORTS})
    assert not re.search(r"<(em|strong|blockquote|ol|hr)\b", rendered)
    for leftover in ("``", ":param", ":return", ":class:", ".. ", "::", ">>>"):
        assert leftover not in re.sub(r"```(yaml)?", "", page)


@pytest.mark.parametrize("documented", [one for _, one in TECHNIQUES], ids=IDS)
def test_formulas_survive_markdown(documented):
    """A docstring's paragraph, rendered, reads as it was written."""
    for paragraph in documented.__doc__.split("\n\n"):
        text = " ".join(paragraph.split())
        rendered = MarkdownIt("commonmark").renderInline(catalogue.escape_markdown(text))
        assert html.unescape(re.sub(r"</?code>", "`", rendered)) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr * gamma ** epoch", "lr * gamma ** epoch"),
        ("f**(i/(K-1)) and 2*x*y", r"f\*\*(i/(K-1)) and 2\*x\*y"),
        ("p_c and _this_", r"p_c and \_this\_"),
        ("`a_*b*` and a*b*", r"`a_*b*` and a\*b\*"),
        ("m ~ Beta, n < 3, <b>", r"m ~ Beta, n < 3, \<b>"),
        ("f[i](x)", r"f[i\](x)"),
        ("a \\ b", "a \\\\ b"),
    ],
)
def test_only_what_markdown_takes_is_escaped(text, expected):
    """Operators between spaces stay as they are, code too; the rest reads the same once rendered."""
    assert catalogue.escape_markdown(text) == expected


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, "0 ≤ number < 1"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 180}, "0 < number ≤ 180"),
        ({"type": "number", "exclusiveMinimum": 0}, "number > 0"),
        ({"type": "integer", "minimum": 1}, "whole number ≥ 1"),
        ({"type": "number", "maximum": 1}, "number ≤ 1"),
        ({"type": "integer"}, "whole number"),
        ({"enum": ["logits", "probabilities", "vote"]}, "logits, probabilities or vote"),
        ({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "all"}]}, "whole number ≥ 1 or all"),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, "number or null"),
        ({"type": "array", "prefixItems": [{"type": "number"}, {"type": "number"}]}, "[number, number]"),
        ({"type": "array", "items": {"type": "string"}}, "list, each text"),
        ({"type": "boolean"}, "true or false"),
        ({}, "any value"),
    ],
)
def test_allowed_values_in_words(schema, expected):
    """A JSON schema's bounds, choices and lists are told in words."""
    assert catalogue.allowed_values(schema) == expected


def test_every_allowed_value_is_told():
    """No setting of a built-in technique may be just anything."""
    for name in FAMILIES:
        for entry in catalogue.entries(name):
            assert all(setting.allowed not in ("", "any value", "mapping") for setting in entry.settings), entry


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-8, "1e-8"),
        (2.5e20, "2.5e+20"),
        (0.9999, "0.9999"),
        (True, "true"),
        (None, "null"),
        ("none", "none"),
        ("4/5", "4/5"),
        ("2", '"2"'),
        ("true", '"true"'),
        (".", '"."'),
        ("", '""'),
        ('a "b" \\d', '"a \\"b\\" \\\\d"'),
        ((0.9, "stage"), "[0.9, stage]"),
        ([], "[]"),
    ],
)
def test_values_are_written_as_the_file_reads_them(value, text):
    """A value is written as the file would have it, and read back as the same."""
    assert catalogue.as_yaml(value) == text
    assert yamlfile.parse(f"value: {text}", "x") == {"value": list(value) if isinstance(value, tuple) else value}


def test_overview_names_everything():
    """Without a name, every family's key and every name is told, in a terminal's width."""
    text = catalogue.overview()
    words = set(re.findall(r"[\w.]+", text))
    assert set(KEYS.values()) <= words
    assert {name for family_name in FAMILIES for name in family(family_name).names} <= words
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("name", ["losses", "loss"])
def test_a_family_is_told_by_either_of_its_names(name):
    """A family's entry has a paragraph for each of its techniques and short forms."""
    text = catalogue.terminal_text(name)
    assert [name for name in family("losses").names if f"\nloss: {name}\n" not in text] == []


def test_a_technique_is_told_wherever_its_name_is():
    """hflip is an augmentation and a test-time augmentation; both are told, with their settings and lines."""
    text = catalogue.terminal_text("hflip")
    assert "augment: [{name: hflip, probability: 0.5}]" in text
    assert "tta: {name: hflip, average: logits}" in text
    assert re.search(r"^ +probability +0\.5 +0 ≤ number ≤ 1$", text, re.MULTILINE)


def test_a_name_that_no_list_has():
    """A model of timm's is told as the models' entry, with its own name in the line."""
    assert "    model: {name: resnet18, pretrained: false" in catalogue.terminal_text("resnet18")


class Mine(Technique):
    """Zero, whatever the loss."""

    name: Literal["mine"] = "mine"
    power: Annotated[float, Field(ge=0, description="of zero")]
    weights: Annotated[Any, Nested("class_weights")] = "none"

    def losses_BC(self, logits_BC, prior_C, state=None):
        return logits_BC * 0


def test_a_technique_of_another_package(monkeypatch, page):
    """An installed plug-in is told in the terminal, but is not on the page, which does not depend on what is installed."""
    plugins = {"mine": (EntryPoint("mine", f"{__name__}:Mine", "ablation.losses"),)}
    monkeypatch.setattr(technique, "plugins", lambda name: plugins if name == "losses" else {})
    monkeypatch.setattr(technique, "_lacking", lambda kind, found: [])
    text = catalogue.terminal_text("mine")
    assert "    Zero, whatever the loss." in text
    assert '    loss: {name: mine, power: "...", weights: none}' in text
    assert re.search(r"^ +setting +default +allowed +meaning\n +power +required +number ≥ 0 +of zero\n", text, re.MULTILINE)
    assert re.search(r"^loss .*mine$", catalogue.overview().replace("\n    ", ""), re.MULTILINE)
    assert catalogue.markdown_page() == page


def test_an_unknown_name_is_an_error():
    """A name that nobody knows is an error with the nearest one."""
    with pytest.raises(ConfigError, match=r"unknown technique 'focla'.*Did you mean 'focal'\?"):
        catalogue.terminal_text("focla")
