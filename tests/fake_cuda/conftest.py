"""The stand-in for CUDA, built once for all processes of a test session, and ways to run on it."""

import ctypes
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from filelock import FileLock

from tests.fake_cuda import build


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The stand-in's library; a test that needs it is skipped, with the reason, where it cannot be built or lacks what torch calls."""
    reason = build.obstacle()
    if reason:
        pytest.skip(reason)
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "fake_cuda"
    folder.mkdir(exist_ok=True)
    with FileLock(shared / "fake_cuda.lock"):
        path = folder / "libfakecuda.so"
        if not path.exists():
            build.build(folder)
    missing = build.missing_symbols(path)
    if missing:
        pytest.skip(f"torch calls functions of CUDA that the stand-in lacks: {', '.join(sorted(missing))}")
    return path


@pytest.fixture
def python(library, tmp_path):
    """`python(*arguments, **settings)`: Python on the stand-in, in the test's folder; its status, stdout, stderr, and contexts made."""

    def run(*arguments, timeout=300, **settings):
        contexts = tmp_path / "contexts"
        contexts.unlink(missing_ok=True)
        environment = build.environment(library, contexts=contexts, **settings)
        command = [sys.executable, *map(str, arguments)]
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        out, err = process.communicate(timeout=timeout)
        lines = contexts.read_text().splitlines() if contexts.exists() else []
        made = {tuple(map(int, line.split())) for line in lines}  # (process, device)
        return SimpleNamespace(status=process.returncode, out=out, err=err, pid=process.pid, contexts=made)

    return run


@pytest.fixture
def fake(library, tmp_path, monkeypatch):
    """The stand-in itself, called without torch: a copy of its own, in which nothing has happened yet, without settings."""
    for name in ("DEVICES", "BYTES", "FULL", "CONTEXTS", "BREAK", "BREAK_AT"):
        monkeypatch.delenv(f"FAKE_CUDA_{name}", raising=False)
    loaded = ctypes.CDLL(str(shutil.copy(library, tmp_path / "own.so")))
    loaded.fake_cuda_count.restype = loaded.fake_cuda_not_awaited.restype = ctypes.c_long
    loaded.fake_cuda_not_awaited.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    loaded.fake_cuda_last_offence.restype = ctypes.c_char_p
    return loaded
