"""What was written is on the disk, by each system's own way."""

import errno
import fcntl
import os
import time

import pytest

from ablation.system import files


@pytest.fixture
def asked(monkeypatch):
    """What the system was asked for."""
    calls = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append("fsync"))
    return calls


def test_linux_is_asked_to_sync(tmp_path, asked, monkeypatch):
    """The file, and the folder that has its name."""
    monkeypatch.delattr(fcntl, "F_FULLFSYNC", raising=False)
    files.write_json(tmp_path / "new" / "a.json", [1])
    assert asked == ["fsync", "fsync"]
    assert (tmp_path / "new" / "a.json").read_text() == "[1]"


def test_macos_is_asked_for_the_disk_itself(tmp_path, asked, monkeypatch):
    """By a call of its own, since its fsync does not wait for the disk; where a file system lacks it, by fsync."""
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda descriptor, command: asked.append(command))
    files.to_disk(tmp_path)
    assert asked == [51]

    def lacking(descriptor, command):
        raise OSError(errno.ENOTTY, "no such call")

    monkeypatch.setattr(fcntl, "fcntl", lacking)
    files.to_disk(tmp_path)
    assert asked == [51, "fsync"]


def test_a_file_system_that_cannot_sync_is_no_error(tmp_path, monkeypatch):
    """But one that fails is."""

    def failing(number):
        def fsync(descriptor):
            raise OSError(number, "")

        return fsync

    monkeypatch.delattr(fcntl, "F_FULLFSYNC", raising=False)
    monkeypatch.setattr(os, "fsync", failing(errno.EINVAL))
    files.to_disk(tmp_path)
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(OSError, match="Errno 5"):
        files.to_disk(tmp_path)


def test_what_was_half_written_goes_after_a_day(tmp_path):
    """Files and folders, whichever process on whichever host began them; not those that are still written to."""
    old, new, whole = files.part_of(tmp_path / "old"), files.part_of(tmp_path / "new"), tmp_path / "whole"
    for path in (old, new, whole):
        path.touch()
    folders = [tmp_path / ".still.elsewhere-1-a.part", tmp_path / ".gone.elsewhere-1-a.part"]
    for folder in folders:
        folder.mkdir()
        (folder / "file").touch()
    before = time.time() - files.DAY - 1
    for path in (old, whole, folders[1] / "file", *folders):
        os.utime(path, (before, before))
    files.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {new.name, "whole", folders[0].name}


def test_names_of_what_is_half_written_are_of_host_and_process(tmp_path):
    """Two hosts that share a folder may write the same file with the same process ID."""
    name = files.part_of(tmp_path / "a.json").name
    assert name.startswith(".a.json.")
    assert f"-{os.getpid()}-" in name
    assert os.uname().nodename[:5].replace(".", "-") in name


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_is_put_under_another_name_after_a_failure(tmp_path, has_links, monkeypatch):
    """Of a renaming that failed nothing stays that would be in the way of the next try."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("a")
    if not has_links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "failed")))
        with pytest.raises(OSError, match="failed"):
            files.link_or_copy(source, target)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    os.link(source, files.part_of(target)) if has_links else files.part_of(target).write_text("old")
    files.link_or_copy(source, target)
    assert target.read_text() == "a"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]
