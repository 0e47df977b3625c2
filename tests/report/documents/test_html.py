"""The page: all of the sections, whole in itself, and nothing in it that a name smuggled in."""

import base64
import re
from html.parser import HTMLParser

import pytest

from ablation import report
from ablation.report.documents.html import LARGEST_SVG, data_uri, page, slug, stored, unbroken
from ablation.report.documents.writing import gather
from ablation.report.sections import Shown, sections
from ablation.report.sections.section import Section
from tests.report.studies import LADDER, arm, study

NASTY = (
    "<script>alert(1)</script>", "</style><b>x</b>", "]]>", "\"quoted\" & 'more'", "[click](javascript:alert(1))",
    "![x](http://evil.example/x.png)", "<http://evil.example>", "http://evil.example", "`code`", "{{ 7 * 7 }}", "-->",
)  # fmt: skip


class PageSeen(HTMLParser):
    """The elements of a page, with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self.inside = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside.append(tag)

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self.inside):
            self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def text(self):
        return "".join(self.words)


class ContentOfArms:
    """Just what the page asks of a content."""

    study = "demo"

    def __init__(self, *arms):
        self.plan = {"arms": [{"name": name} for name in arms]}


def page_of(body="", title="Title", arms=(), images=None, details=()):
    return page(ContentOfArms(*arms), [Section(title, body, details)], images or {})


@pytest.fixture(scope="module")
def plain():
    """The page of the usual study."""
    return PageSeen(report.write(study(), "html"))


def test_every_section_and_table_is_there(plain):
    """The headings of the Markdown, folded ones too, and as many tables."""
    seen, markdown = plain, report.write(study())
    assert len(seen.all("table")) == len(re.findall(r"^\| ?-", markdown, re.MULTILINE)) > 10
    for heading in re.findall(r"^## (.+)$", markdown, re.MULTILINE):
        assert slug(heading) in [attrs.get("id") for tag, attrs in seen.elements if re.fullmatch(r"h\d", tag)]


def test_every_number_of_the_comparison_is_there(plain):
    """The page says what the Markdown does."""
    words = " ".join(plain.text.split())
    for number in re.findall(r"\d+\.\d\d ± \d+\.\d\d|[+-]\d+\.\d\d \[[+-]\d+\.\d\d, [+-]\d+\.\d\d\]", report.write(study())):
        assert number in words


def test_anchors_are_each_given_once_and_lead_somewhere(plain):
    """No two elements share an id, and every link of the page is to one of them."""
    seen = plain
    ids = [attrs["id"] for _, attrs in seen.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs["href"] for attrs in seen.all("a")]
    assert len(links) > 10
    assert {link for link in links if not link.startswith("#")} == set()
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_a_number_of_runs_leads_to_the_arms_own(plain):
    """Each arm's count links to the first row of its runs."""
    seen = plain
    links = {attrs["href"] for attrs in seen.all("a")}
    rows = {attrs["id"] for attrs in seen.all("tr") if "id" in attrs}
    assert {f"run-{slug(planned['name'])}" for planned in LADDER} == rows
    assert {f"#{row}" for row in rows if not row.startswith("run-no-lag")} <= links


def test_names_are_never_markup(plain):
    """Wherever a user's word can stand, it is read as it is written, and makes no element, link or request."""
    arms = [
        arm("baseline", None),
        *(arm(f"arm {i}", "baseline", label=name, note=name, labels={"bundle": name}) for i, name in enumerate(NASTY)),
    ]
    recorded = study(arms, classes=("plane", *NASTY), images=5, broken={("arm 0", 0)})
    recorded.runs.loc[recorded.runs["status"] == "FAILED", "reason"] = NASTY[0]
    recorded.plan["notes"], recorded.plan["command"] = list(NASTY), NASTY[0]
    seen = PageSeen(report.write(recorded, "html"))
    assert {tag for tag, _ in seen.elements} <= {tag for tag, _ in plain.elements} | {"code", "em", "strong"}
    assert len(seen.all("script")) == len(plain.all("script"))
    assert all(attrs["href"].startswith("#") for attrs in seen.all("a"))
    assert all(attrs["src"].startswith("data:image/") for attrs in seen.all("img"))
    words = " ".join(seen.text.split())
    assert [name for name in NASTY if words.count(" ".join(name.split())) < 3] == []


def test_the_page_lets_nothing_in(plain):
    """Its own policy forbids every source but what is in it, and no address stands in an attribute."""
    seen = plain
    policy = next(attrs["content"] for attrs in seen.all("meta") if attrs.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "img-src data:" in policy
    values = [value for _, attrs in seen.elements for value in attrs.values() if value]
    assert not [value for value in values if re.match(r"\s*(https?:|//|javascript:)", value)]


def test_pictures_are_inside_as_svg_where_that_is_small():
    """A picture is the SVG beside the PNG that the text names, unless it is large; its words for the blind stay."""
    images = {"figures/a-1.png": b"png", "figures/a-1.svg": b"<svg/>"}
    (image,) = PageSeen(page_of("![What it shows](figures/a-1.png)", images=images)).all("img")
    kind, _, data = image["src"].partition(",")
    assert (kind, base64.b64decode(data), image["alt"]) == ("data:image/svg+xml;base64", b"<svg/>", "What it shows")
    large = images | {"figures/a-1.svg": bytes(LARGEST_SVG + 1)}
    assert data_uri("figures/a-1.png", large) == "data:image/png;base64," + base64.b64encode(b"png").decode()
    assert stored("figures/other.png", images) == ""


def test_a_picture_that_is_not_there_stays_text():
    """Nothing is asked for from anywhere."""
    seen = PageSeen(page_of("![x](https://elsewhere.example/x.png) [y](https://elsewhere.example)"))
    assert (seen.all("img"), [link for link in seen.all("a") if "elsewhere" in link["href"]]) == ([], [])


@pytest.mark.parametrize(
    ("words", "name"),
    [("better", "better"), ("better (t only)", "better"), ("worse, by less than 0.5", "worse"), ("no difference beyond 0.5", "equal"),
     ("inconclusive", "inconclusive"), ("same training", "same")],
)  # fmt: skip
def test_verdicts_have_their_class(words, name):
    """By their words, so that a colour never says what the text does not."""
    seen = PageSeen(page_of(f"| arm | verdict |\n|---|---|\n| cb | {words} |"))
    assert seen.all("td")[1]["class"].split() == ["verdict", name]
    assert "class" not in seen.all("td")[0]
    assert [attrs["data-label"] for attrs in seen.all("td")] == ["arm", "verdict"]


def test_numbers_stay_on_one_line():
    """An interval is not broken at its comma, nor a mean before its deviation; the difference may stand above its interval."""
    assert unbroken("97.21 ± 0.59") == "97.21\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.59"
    assert unbroken("+0.75 [-0.10, +1.60]") == "+0.75 [-0.10,\N{NO-BREAK SPACE}+1.60]"
    assert unbroken("one, two") == "one, two"


def test_a_figure_stands_beside_its_table():
    """In one box with the text, where there is a figure; otherwise the text is alone."""
    section = Section("Title", "text", figure="![What it shows](figures/a-1.png)")
    with_figure = page(ContentOfArms(), [section], {"figures/a-1.png": b"png"})
    assert re.search(r'<div class="beside">.*text.*<div class="figure">.*alt="What it shows"', with_figure, re.DOTALL)
    assert '<div class="beside">' not in page_of("text")


def test_a_table_has_a_name_and_heads():
    """It can be reached with the keys, is told by its heading, and its heads say that they are of columns."""
    seen = PageSeen(page_of("| a | b |\n|---|--:|\n| x | 1 |", title="Costs"))
    box = next(attrs for attrs in seen.all("div") if attrs.get("role") == "region")
    assert (box["aria-label"], box["tabindex"]) == ("Table: Costs", "0")
    assert [attrs["scope"] for attrs in seen.all("th")] == ["col", "col"]
    assert seen.all("td")[1]["class"] == "number"


def test_details_are_folded():
    """Each part that a reader opens if need be is folded, its heading in the summary."""
    text = page_of("body", details=(Section("Inner", "deep", (Section("Innermost", "deeper"),)),))
    assert re.search(r"<summary>\s*<h3 id=\"inner\">Inner</h3>\s*</summary>.*<summary>\s*<h4 id=\"innermost\">", text, re.DOTALL)
    assert "open" not in {name for attrs in PageSeen(text).all("details") for name in attrs}


def test_every_content_section_is_rendered_once(plain):
    """The contents list names each section, in its order."""
    content = gather(study(), Shown())
    slugs = [slug(re.sub(r"[*`\\]", "", section.title)) for section in sections(content)]
    listed = [attrs["href"].removeprefix("#") for attrs in plain.all("a")][1 : len(slugs) + 1]
    assert listed == slugs
