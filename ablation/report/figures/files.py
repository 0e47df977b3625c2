"""Writes pages into files, in as many processes as there are cores.

Equal pages give equal bytes, whichever process draws them.
"""

import contextlib
import gc
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

from ablation.report.figures.page import Page
from ablation.report.figures.style import save, styled
from ablation.system.beside import free_cores, quiet_fork

FEWEST = 8  # pages that are worth another process
MOST_PROCESSES = 8
SELDOM = (50_000, 20, 100)  # new objects, young and middle collections between collections of garbage
COLUMN = "column"  # the folder of the pages for a column of a paper

_inherited: list[Page] = []  # what the children draw: the functions that draw cannot be sent to them


def write(pages: Sequence[Page], folder: Path) -> list[Page]:
    """Write NAME.png, NAME.svg (or what else a page asks for) and column/NAME.pdf into that folder; the pages that could be drawn.

    What could not is told once.
    """
    with styled(), _seldom_collecting():  # once for all of them, and inherited by other processes
        problems = _written_by_many(pages, folder) if _processes(len(pages)) > 1 else _written(pages, range(len(pages)), folder)
    if problems:
        first = f"{pages[min(problems)].name}: {problems[min(problems)]}"
        words = f"{len(problems)} of {len(pages)} figures could not be drawn, and the report goes without ({first})"
        print(words, file=sys.stderr)
    return [page for number, page in enumerate(pages) if number not in problems]


def _written(pages: Sequence[Page], numbers: Sequence[int], folder: Path) -> dict[int, str]:
    """Write these pages; number -> what was wrong with a page that could not be drawn."""
    found = {number: write_page(pages[number], folder) for number in numbers}
    return {number: problem for number, problem in found.items() if problem}


def write_page(page: Page, folder: Path) -> str:
    """Write the files of a page, all or none; what was wrong, or an empty text."""
    drawn = [folder / f"{page.name}.{suffix}" for suffix in page.suffixes]
    column = folder / COLUMN / f"{page.name}.pdf"
    try:
        figure = page.draw()
        for file in drawn:
            save(figure, file)
        if page.column is not None:
            save(page.column(), column)
    except Exception as error:  # a figure is decoration: the numbers are written without it
        for file in (*drawn, column):
            file.unlink(missing_ok=True)
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ""


def _processes(count: int) -> int:
    """How many processes draw that many pages."""
    return 1 if count < FEWEST else min(free_cores(), MOST_PROCESSES)


def _written_by_many(pages: Sequence[Page], folder: Path) -> dict[int, str]:
    """The same in several processes, the small pages (`confusion/ARM`) last. What a process that died leaves undone is drawn here."""
    _inherited[:] = pages
    results: dict[int, Future[str]] = {}
    try:
        with quiet_fork(), ProcessPoolExecutor(_processes(len(pages)), multiprocessing.get_context("fork")) as pool:
            results = {
                number: pool.submit(_in_child, number, folder)
                for number in sorted(range(len(pages)), key=lambda number: "/" in pages[number].name)
            }
    except OSError:  # no further process is allowed
        results = {}
    finally:
        _inherited.clear()
    done = {number: result.result() for number, result in results.items() if result.done() and result.exception() is None}
    return {number: problem for number, problem in done.items() if problem} | _written(
        pages, [number for number in range(len(pages)) if number not in done], folder
    )


def _in_child(number: int, folder: Path) -> str:
    return write_page(_inherited[number], folder)


@contextlib.contextmanager
def _seldom_collecting() -> Iterator[None]:
    """Leave alone what is in memory already, and look for garbage seldom: that would take a tenth of the time."""
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*SELDOM)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
