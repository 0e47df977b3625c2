"""Folders of results appear whole, of the process whose they are."""

import json
import platform

import pytest

from ablation.system import fencing, sealed
from ablation.system.fencing import Fenced


def test_a_folder_has_what_was_written_into_its_part(tmp_path):
    folder = tmp_path / "key"
    (sealed.part_of(folder) / "table.csv").write_text("1")
    sealed.complete(folder, {"metrics": {}}, {})
    assert sealed.is_whole(folder)
    assert set(json.loads((folder / sealed.RESULT).read_text())["files"]) == {"table.csv"}
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_part_that_is_gone_makes_no_result(tmp_path):
    """It would be whole without the files that were written into it."""
    folder = tmp_path / "key"
    (sealed.part_of(folder) / "table.csv").write_text("1")
    sealed.clear_part(folder)
    with pytest.raises(FileNotFoundError):
        sealed.complete(folder, {"metrics": {}}, {})
    assert not folder.exists()


def test_who_was_fenced_deletes_nobodys_part(tmp_path, monkeypatch):
    """An attempt that was given up and lives on leaves alone what its successor is writing."""

    def taken_over():
        raise Fenced(tmp_path)

    part = sealed.part_of(tmp_path / "key")
    monkeypatch.setattr(fencing, "check", taken_over)
    with pytest.raises(Fenced):
        sealed.clear_part(tmp_path / "key")
    assert part.exists()


def test_a_result_says_what_it_was_made_with(tmp_path, monkeypatch):
    """The versions of whoever computed it, and the commit as this process was told; damaged, it is whole no more."""
    monkeypatch.setenv("ABLATE_COMMIT", "0123abc")
    folder = tmp_path / "key"
    sealed.part_of(folder)
    sealed.complete(folder, {"metrics": {}}, {})
    text = (folder / sealed.RESULT).read_text()
    made = json.loads(text)["made"]
    assert (made["commit"], made["dirty"]) == ("0123abc", False)
    assert made["versions"]["python"] == platform.python_version()
    assert sealed.is_whole(folder)
    (folder / sealed.RESULT).write_text(text.replace("0123abc", "0123abd"))
    assert not sealed.is_whole(folder)
