"""Syntax trees are made in several threads at once, as runs of one's own code ask for them."""

import gc
import threading
import time
from pathlib import Path

from ablation.system.code import lenient_tree

SOURCES = [file.read_bytes() for file in sorted((Path(__file__).parents[2] / "ablation").rglob("*.py"))[:60]]


class Cyclic:
    """Garbage that lets another thread run while it is collected."""

    def __init__(self):
        self.itself = self

    def __del__(self):
        time.sleep(0)


def test_trees_that_threads_make_at_once_are_whole():
    """Collecting garbage may change the thread within a tree, of which Python 3.11 then says: AST constructor recursion depth mismatch."""
    problems, thresholds = [], gc.get_threshold()

    def make_all():
        for source in SOURCES:
            for _ in range(5):
                Cyclic()
            try:
                lenient_tree(source)
            except SystemError as error:
                problems.append(error)

    threads = [threading.Thread(target=make_all) for _ in range(3)]
    gc.set_threshold(50, 2, 100)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.set_threshold(*thresholds)
    assert problems == []
