"""A function in a process of its own: what it returns, and every way in which it does not."""

import math
import multiprocessing
import os
import time

import pytest

from ablation.system.child import ChildError, call_in_child, one_line


def test_what_it_returns_comes_back():
    """The answer is that of another process, which is gone afterwards."""
    assert call_in_child(math.hypot, 3, 4, timeout=60) == 5
    assert call_in_child(os.getpid, timeout=60) != os.getpid()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("function", "arguments", "timeout", "words"),
    [
        (math.sqrt, (-1,), 60, "ValueError: "),
        (int, ("two\nlines",), 60, r"ValueError: invalid literal for int\(\) with base 10: 'two\\nlines'"),
        (os.abort, (), 60, "its process ended with -6"),
        (os._exit, (3,), 60, "its process ended with 3"),
        (time.sleep, (60,), 0.1, "it was not done after 0 s"),
    ],
)
def test_what_goes_wrong_is_one_line(function, arguments, timeout, words):
    """An error, a crash and a process that hangs are each told in a line, and leave no process behind."""
    with pytest.raises(ChildError, match=words) as caught:
        call_in_child(function, *arguments, timeout=timeout)
    assert "\n" not in str(caught.value)
    assert not multiprocessing.active_children()


def test_advice_of_cuda_is_left_out():
    """Its messages have several lines of advice on debugging."""
    message = "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported\nFor debugging ..."
    assert one_line(RuntimeError(message)) == "RuntimeError: CUDA error: out of memory"
