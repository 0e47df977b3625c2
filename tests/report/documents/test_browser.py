"""The page in a real browser: sorting, filtering, colours, the keyboard, a narrow screen, and no request that leaves it."""

# ruff: noqa: E501 - the scripts' lines

import html
import json
import re
import shutil
import subprocess

import pytest

from ablation import report
from tests.report.studies import arm, study

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome, which is not installed")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
EVIL = "![x](http://evil.example/x.png) <img src=http://evil.example/y.png onerror=document.title=1>"
ARMS = [arm("baseline", None), *(arm(f"rung {number}", "baseline", change={"epochs": [1, number]}) for number in range(2, 16))]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of a study of fifteen arms, whose class names try to load pictures from elsewhere."""
    folder = tmp_path_factory.mktemp("page")
    report.write(study(ARMS, classes=("plane", EVIL, "cat")), "html", folder)
    return folder / "report.html"


def driven(page, script, *flags, name="driven"):
    """What a script within the page returns, as JSON."""
    beside = page.with_name(f"{name}.html")
    tail = f"<script>document.title = JSON.stringify((() => {{ {script} }})());</script></body>"
    beside.write_text(page.read_text(encoding="utf-8").replace("</body>", tail), encoding="utf-8")
    command = [
        BROWSER,
        *FLAGS,
        f"--user-data-dir={page.parent / name}",
        "--virtual-time-budget=3000",
        *flags,
        "--dump-dom",
        f"file://{beside}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)[1]))


def test_tables_sort_and_go_back(page):
    """A click sorts by number, another turns it round, a third brings the file's order back; what has no number stays last."""
    script = """
      const table = document.querySelector("main table");
      const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
      const column = names.indexOf("vs baseline");
      const head = table.tHead.rows[0].cells[column];
      const now = () => [...table.tBodies[0].rows].map((row) => row.cells[column].textContent.trim());
      const found = [{order: head.getAttribute("aria-sort"), cells: now()}];
      for (let i = 0; i < 3; i++) { head.querySelector("button").click(); found.push({order: head.getAttribute("aria-sort"), cells: now()}); }
      return found;
    """
    before, up, down, again = driven(page, script, name="sorting")
    numbers = [float(cell.split()[0]) for cell in up["cells"] if cell != "–"]
    assert [state["order"] for state in (before, up, down, again)] == ["none", "ascending", "descending", "none"]
    assert numbers == sorted(numbers) != [float(cell.split()[0]) for cell in before["cells"] if cell != "–"]
    assert [float(cell.split()[0]) for cell in down["cells"] if cell != "–"] == sorted(numbers, reverse=True)
    assert up["cells"][-1] == down["cells"][-1] == "–" == before["cells"][0]
    assert again["cells"] == before["cells"]


def test_arms_can_be_filtered(page):
    """The words of a name leave the rows that have them, and the count says so."""
    script = """
      const box = document.querySelector(".filter");
      const rows = () => [...box.nextElementSibling.querySelectorAll("tbody tr")].filter((row) => !row.hidden).map((row) => row.cells[0].textContent);
      const input = box.querySelector("input");
      input.value = "rung 1"; input.dispatchEvent(new Event("input"));
      const few = rows(), words = box.querySelector("output").textContent;
      input.value = ""; input.dispatchEvent(new Event("input"));
      return {few, words, all: rows().length};
    """
    rows = driven(page, script, name="filter")
    assert rows == {"few": [f"rung {number}" for number in range(10, 16)], "words": "6 of 15 rows", "all": 15}


COLOURS = """
  const luminance = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (element) => {
    let behind = element;
    while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
    const [one, other] = [luminance(getComputedStyle(element).color), luminance(getComputedStyle(behind).backgroundColor)];
    return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  };
  const seen = () => {
    const probes = ["better", "worse", "equal", "inconclusive"].map((name) => {
      const cell = document.querySelector("main td").cloneNode(); cell.className = `verdict ${name}`; cell.textContent = name;
      document.querySelector("main tbody tr").append(cell); const found = contrast(cell); cell.remove(); return found;
    });
    const others = ["main p", "main td", "main th", "main a", "nav a"].map((where) => contrast(document.querySelector(where)));
    return {background: getComputedStyle(document.body).backgroundColor, contrast: Math.min(...probes, ...others)};
  };
"""


def test_light_and_dark(page):
    """The button turns the colours round, and every text keeps a contrast of at least 4.5 to 1, verdicts included."""
    light, dark, again = driven(
        page,
        COLOURS + "const click = () => { document.querySelector('.theme').click(); return seen(); }; return [seen(), click(), click()];",
        "--blink-settings=preferredColorScheme=1",
        name="colours",
    )
    assert light["background"] == again["background"] == "rgb(255, 255, 255)"
    assert dark["background"] != light["background"]
    assert min(light["contrast"], dark["contrast"]) >= 4.5


def test_the_systems_dark_mode_counts(page):
    """Without a choice of one's own, the page is as dark as the system asks."""
    colours = driven(page, COLOURS + "return seen();", "--blink-settings=preferredColorScheme=0", name="system")
    assert colours["background"] == "rgb(20, 23, 26)"


def test_the_keyboard_reaches_everything(page):
    """Headers are buttons, wide tables can be scrolled with the keys and have a name, pictures and folds are opened by it."""
    script = """
      const all = (where) => [...document.querySelectorAll(where)];
      all("details").forEach((one) => { one.open = true; });
      const focusable = (element) => { element.focus(); return document.activeElement === element; };
      const picture = document.querySelector(".picture"); picture.click();
      return {
        skip: focusable(document.querySelector(".skip")), theme: focusable(document.querySelector(".theme")),
        heads: all("main th").filter((head) => head.closest("table").tBodies[0].rows.length > 1).every((head) => focusable(head.querySelector("button"))),
        tables: all(".scroll").every((one) => focusable(one) && one.getAttribute("aria-label").length > 7 && one.getAttribute("role") === "region"),
        folds: all("main summary").every(focusable), pressed: picture.getAttribute("aria-pressed"), big: picture.querySelector("img").clientWidth > picture.clientWidth,
        pictures: all("main img").every((image) => image.alt.length > 10 && image.naturalWidth > 0),
      };
    """
    reached = driven(page, script, "--window-size=1300,900", name="keyboard")
    assert reached == {name: True for name in reached if name != "pressed"} | {"pressed": "true"}


@pytest.mark.parametrize("width", [500, 1400])
def test_nothing_is_wider_than_the_page(page, width):
    """Tables and pictures scroll in their own boxes, on a narrow screen too."""
    script = "document.querySelectorAll('details').forEach((one) => { one.open = true; });"
    script += "return [document.documentElement.scrollWidth, document.documentElement.clientWidth];"
    needed, there = driven(page, script, f"--window-size={width},900", name=f"width-{width}")
    assert needed <= there <= width


def test_an_arms_number_leads_to_its_runs(page):
    """The link of a row opens what is folded and comes to the run's row, where its whole id stands."""
    script = """
      const link = document.querySelectorAll("main table tbody tr")[2].querySelector("a");
      const row = document.getElementById(decodeURIComponent(link.hash.slice(1)));
      location.hash = link.hash; dispatchEvent(new Event("hashchange"));
      return {text: row.textContent, open: row.closest("details").open, tag: row.tagName};
    """
    row = driven(page, script, name="runs")
    assert (row["tag"], row["open"]) == ("TR", True)
    assert re.search(r"rung 3\b", row["text"])
    assert re.search(r"[0-9a-f]{32}", row["text"])


def test_no_request_leaves_the_page(page):
    """Nothing is asked for but the file itself, whatever the classes are called, and nothing that they are called is run."""
    log = page.with_name("net.json")
    script = "return [performance.getEntriesByType('resource').map((one) => one.name).filter((name) => !name.startsWith('data:')), document.images.length];"
    requests, pictures = driven(page, script, f"--log-net-log={log}", "--net-log-capture-mode=Everything", name="requests")
    assert requests == []
    assert pictures > 5
    assert "evil.example" not in log.read_text(encoding="utf-8", errors="replace")
