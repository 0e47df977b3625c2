"""What is kept on disk of the installed code: it is found once, for one state of the code, and never breaks what asks for it."""

import json

import pytest

from ablation.system import kept as kept_module
from ablation.system.kept import folder, kept


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "cache"))


class Finder:
    """Finds a value, and counts how often."""

    def __init__(self, value):
        self.value, self.count = value, 0

    def __call__(self):
        self.count += 1
        return self.value


def test_it_is_found_once():
    """The second time it comes from the file; other keys and kinds are found for themselves."""
    find = Finder({"a": [1, 2.5, None]})
    assert [kept("kind", "key", find) for _ in range(3)] == [find.value] * 3
    assert find.count == 1
    other = Finder(7)
    assert (kept("kind", "other", other), kept("another", "key", other)) == (7, 7)
    assert other.count == 2
    assert kept("kind", "key", find) == find.value
    assert find.count == 1
    assert sorted(path.name for path in folder().iterdir()) == ["another.json", "kind.json"]


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"state": 1}', "altered"])
def test_a_damaged_file_is_no_answer(damage):
    """Whatever stands in the file, what is wrong is found again and written anew."""
    find = Finder(464154)
    kept("kind", "key", find)
    path = folder() / "kind.json"
    path.write_bytes(path.read_bytes().replace(b"464154", b"464155") if damage == "altered" else damage)
    assert kept("kind", "key", find) == 464154
    assert find.count == 2
    assert kept("kind", "key", find) == 464154
    assert find.count == 2


def test_another_state_of_the_code_begins_anew(monkeypatch):
    """What was found with other code or versions is not used, and does not stay."""
    find = Finder(1)
    kept("kind", "old", find)
    monkeypatch.setattr(kept_module, "code_state", lambda: "another")
    assert kept("kind", "new", Finder(2)) == 2
    assert kept("kind", "old", find) == 1
    assert find.count == 2
    assert set(json.loads((folder() / "kind.json").read_text())["known"]) == {"new", "old"}


def test_the_state_is_that_of_files_and_versions(monkeypatch):
    """Another version of a library is another state."""
    before = kept_module.code_state()
    kept_module.code_state.cache_clear()
    assert kept_module.code_state() == before
    kept_module.code_state.cache_clear()
    monkeypatch.setattr(kept_module, "package_version", lambda name: "0.0" if name == "timm" else "1.0")
    assert kept_module.code_state() != before
    kept_module.code_state.cache_clear()


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    """A file in the place of the folder, as any folder that is read-only: it is found each time."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "file" / "cache"))
    find = Finder(3)
    assert [kept("kind", "key", find) for _ in range(2)] == [3, 3]
    assert find.count == 2


def test_what_is_not_found_is_not_kept():
    """An error of the finder is its caller's, and nothing is written."""
    with pytest.raises(ZeroDivisionError):
        kept("kind", "key", lambda: 1 // 0)
    assert not folder().exists()
