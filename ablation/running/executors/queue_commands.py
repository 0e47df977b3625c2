"""The commands of a batch system, carried out: what they printed, or that they did not answer."""

import subprocess
from collections.abc import Sequence

from ablation.errors import AblateError

PATIENCE = 60  # seconds


def carried_out(words: Sequence[str], expected: str) -> subprocess.CompletedProcess[str]:
    """What the command gave; one that hangs has failed. Raises AblateError, with what was `expected`, if it is not installed.

    It stands in a session of its own, so that a Ctrl-C at the terminal does not end it.
    """
    try:
        return subprocess.run(
            words,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (FileNotFoundError, PermissionError):
        raise AblateError(f"found no command {words[0]} here; expected {expected}") from None
    except OSError as error:  # a host that has no room for another process
        return subprocess.CompletedProcess(list(words), 1, "", f"{words[0]} could not be started: {error}")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(list(words), 1, "", f"{words[0]} did not answer within {PATIENCE} s")
