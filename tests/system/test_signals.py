"""What a command is told by a signal reaches it, whatever a library makes of it; and a command's words can be recorded."""

import os
import signal
import sys

import pytest

from ablation.system import signals
from ablation.system.invocation import command_line


def swallowed():
    """A library that ends its import at an interruption, and goes on."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        return


def changed():
    """One that calls it by another name."""
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt as error:
        raise ImportError("half imported") from error


@pytest.mark.parametrize("library", [swallowed, changed])
def test_an_interruption_is_none_less_for_what_a_library_makes_of_it(library):
    """It comes out as what Ctrl-C is, and the handlers are those of before."""
    before = [signal.getsignal(number) for number in signals.NUMBERS]
    with pytest.raises(KeyboardInterrupt), signals.interruptible():
        library()
    assert [signal.getsignal(number) for number in signals.NUMBERS] == before


def test_an_error_without_an_interruption_stays_one():
    """What nobody interrupted fails as it does."""
    with pytest.raises(ImportError, match="absent"), signals.interruptible():
        raise ImportError("absent")


def test_where_python_swallows_the_interruption(monkeypatch):
    """A signal that comes while an object is tidied away stops the command, without a traceback; other errors there are told."""

    class Tidied:
        def __init__(self, act):
            self.act = act

        def __del__(self):
            self.act()

    def fail():
        raise ValueError("told")

    def tidy():
        Tidied(fail)
        Tidied(lambda: os.kill(os.getpid(), signal.SIGUSR1))

    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda problem: told.append(problem.exc_type))
    with pytest.raises(KeyboardInterrupt), signals.interruptible():
        tidy()
    assert told == [ValueError]


def test_a_name_that_is_no_unicode_can_be_recorded(monkeypatch):
    """A database takes no half characters; the command line shows them as escapes."""
    monkeypatch.setattr(sys, "argv", ["ablate", "run", os.fsdecode(b"caf\xe9.yaml")])
    assert command_line().encode() == rb"ablate run 'caf\udce9.yaml'"
