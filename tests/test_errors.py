"""What users are told."""

import errno
import os
import pickle

import pytest

from ablation.errors import AblateError, ConfigError, DataError, StoreError, TrainingError, nearest, os_words, unknown_name


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConfigError("base.loss", "found 3; expected a name"), "base.loss: found 3; expected a name"),
        (ConfigError("", "found 3"), "found 3"),
        (ConfigError("gamma", "found -1").under("base.loss"), "base.loss.gamma: found -1"),
        (ConfigError("", "found -1").under("base.loss"), "base.loss: found -1"),
        (ConfigError("gamma", "found -1").under(""), "gamma: found -1"),
        (TrainingError("nan", "the loss became nan"), "the loss became nan"),
        (DataError("no images"), "no images"),
        (StoreError("no store"), "no store"),
    ],
)
def test_errors_say_place_and_problem(error, text):
    """Every error is one of ours, says its sentence, and comes whole out of another process."""
    assert isinstance(error, AblateError)
    assert str(error) == text
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), text, vars(error))


@pytest.mark.parametrize(
    ("name", "hint"), [("mixupp", " Did you mean 'mixup'?"), ("cut_mix", " Did you mean 'cutmix'?"), ("zzz", ""), ("", "")]
)
def test_the_nearest_name_is_asked_for(name, hint):
    """A name close to a known one brings the question; another one brings none."""
    assert nearest(name, iter(["mixup", "cutmix", "none"])) == hint


def test_an_unknown_name_where_there_is_none():
    """No empty list of names is offered."""
    assert (
        str(unknown_name("profiles", "profile", "x", {})) == "profiles: unknown profile 'x'; expected none, since there is no profile here"
    )


def test_an_unknown_name_is_told_with_those_that_are_known():
    """Place, what it should be, what was found, the known names in order, and the nearest."""
    error = unknown_name("base.mix", "mixing", "mixupp", {"none", "mixup", "cutmix"})
    assert str(error) == "base.mix: unknown mixing 'mixupp'; expected one of cutmix, mixup, none. Did you mean 'mixup'?"
    assert error.path == "base.mix"


def test_a_disk_without_locks_is_told_as_such():
    """As NFS without its lock service; any other error of the system in its own words."""
    refused = OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), "mlruns/locks/tiny.lock")
    assert os_words(refused).endswith("this disk has no locks; expected mlruns on one that has them, such as NFS with its lock service")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert os_words(full) == str(full)
