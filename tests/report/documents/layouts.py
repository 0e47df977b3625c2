"""Measures the tables of a page in a real browser, at any width, with everything opened."""

import html
import json
import re
import shutil
import subprocess

from markdown_it import MarkdownIt

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
MEASURE = """<script>
  document.querySelectorAll("details").forEach((one) => { one.open = true; });
  const name = (table) => `${[...table.rows[0].cells].map((cell) => cell.textContent.trim()).join("|")} ${table.tBodies[0].rows.length}`;
  const isWide = (table) => { const box = table.closest(".scroll") || table; return box.scrollWidth > box.clientWidth + 1; };
  const all = [...document.querySelectorAll("table")], root = document.documentElement;
  const wide = all.filter(isWide).map(name).concat(root.scrollWidth > root.clientWidth ? ["the page"] : []);
  parent.postMessage(JSON.stringify({tables: all.length, wide}), "*");
</script></body>"""
# as GitHub lays out a Markdown file
GITHUB = """<html><body style="margin:0 32px;overflow-wrap:break-word">
<style>body{font:16px/1.5 system-ui,'Segoe UI','Noto Sans',Helvetica,Arial,sans-serif}
table{display:block;width:max-content;max-width:100%;overflow:auto;border-collapse:collapse}
th,td{padding:6px 13px;border:1px solid #ddd} code{font-size:85%;overflow-wrap:break-word}</style>"""


def github(markdown):
    """The Markdown document as a page that looks as on GitHub."""
    return f"{GITHUB}{MarkdownIt('commonmark', {'html': True}).enable('table').render(markdown)}</body></html>"


def too_wide(page, width, folder):
    """The heads of the tables that are wider than their place, and `the page` if that is wider than the window."""
    (folder / "measured.html").write_text(page.replace("</body>", MEASURE), encoding="utf-8")
    frame = f'<iframe src="measured.html" style="border:0;width:{width}px;height:900px"></iframe>'
    listen = "<script>addEventListener('message', (event) => { document.title = event.data; });</script>"
    (folder / "frame.html").write_text(f"<html><body>{listen}{frame}</body></html>", encoding="utf-8")
    command = [
        BROWSER,
        *FLAGS,
        f"--user-data-dir={folder / 'browser'}",
        "--allow-file-access-from-files",
        "--virtual-time-budget=4000",
        f"--window-size={max(500, width + 50)},900",
        "--dump-dom",
        f"file://{folder / 'frame.html'}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    found = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)[1]))
    assert found["tables"] > 0
    return found["wide"]
