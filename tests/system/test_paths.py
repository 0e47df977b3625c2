"""Paths that users write: whatever is wrong with one ends in a sentence with its place."""

import os
import socket
from pathlib import Path

import pytest

from ablation.errors import ConfigError
from ablation.system.paths import user_file, user_folder, user_path

WRONG = {
    "~nosuchuser/x": "no such user",
    "a\0b": "null character",
    "x" * 300: "file name too long",
    "x/" * 3000: "file name too long",
    "\ud800": "not text in UTF-8",
    "": "expected a path",
    "  ": "expected a path",
    "loop": "symbolic links",
    "loop/x": "symbolic links",
    "pipe": "is a pipe",
    "/dev/null": "is a device",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a file, a folder, a pipe and a link to itself, as the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.csv").write_text("a")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


@pytest.mark.parametrize(("text", "problem"), WRONG.items(), ids=[ascii(text)[:20] for text in WRONG])
@pytest.mark.parametrize("check", [user_path, lambda text, where: user_file(text, where, "a file"), user_folder])
def test_what_can_be_no_path_is_refused(folder, text, problem, check):
    """The one sentence has the place, and can be printed."""
    with pytest.raises(ConfigError, match=problem) as error:
        check(text, "data.root")
    assert str(error.value).startswith("data.root: ")
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 300


def test_a_socket_is_no_file(tmp_path, monkeypatch):
    """Nothing is read from a socket."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(ConfigError, match="is a socket"):
            user_path("socket", "FILE")


@pytest.mark.parametrize("text", ["file.csv", "folder", "none", "none/x", "file.csv/x", "é ü 日本", "folder/..", "\udcff"])
def test_other_paths_stay_as_they_are(folder, text):
    """There need be nothing; names of any script, or that are no UTF-8 on the disk, are paths."""
    assert user_path(text, "data.root") == Path(text)
    assert user_path(text, "data.root", folder) == folder / text


def test_the_own_folder_is_expanded(folder, monkeypatch):
    """~ is the user's folder, and absolute."""
    monkeypatch.setenv("HOME", str(folder))
    assert user_path("~/x", "data.root", Path("elsewhere")) == folder / "x"


def test_a_file_of_the_current_folder_is_told_from_the_base(folder):
    """A path that was completed in the shell, where another folder is the base, is told as it should be written."""
    (folder / "studies").mkdir()
    with pytest.raises(ConfigError, match=r"no file .*studies/file\.csv; .* start at .*studies: did you mean '\.\./file\.csv'\?"):
        user_file("file.csv", "model.weights", "a CSV file", folder / "studies")
    assert user_file("../file.csv", "model.weights", "a CSV file", folder / "studies").exists()
    with pytest.raises(ConfigError, match=r"expected a CSV file\.$"):
        user_file("other.csv", "model.weights", "a CSV file", folder / "studies")


@pytest.mark.parametrize(
    ("text", "problem"), [("folder", "is a folder"), ("fil.csv", "no file fil.csv; .* Did you mean 'file.csv'"), ("file.csv/x", "no file")]
)
def test_a_file_must_be_there(folder, text, problem):
    """A folder is none, and a near name is told."""
    assert user_file("file.csv", "--reference", "a CSV file") == Path("file.csv")
    with pytest.raises(ConfigError, match=problem):
        user_file(text, "--reference", "a CSV file")


@pytest.mark.parametrize("text", ["file.csv", "file.csv/x"])
def test_a_file_is_no_folder(folder, text):
    """Neither is one of the folders above."""
    assert user_folder("folder/new/deep", "--output") == Path("folder/new/deep")
    with pytest.raises(ConfigError, match=r"file\.csv' is a file; expected a folder"):
        user_folder(text, "--output")
