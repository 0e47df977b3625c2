import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from ablation.data import cache as cache_module
from ablation.data import open_dataset, prepare
from ablation.data.cache import Names, find_files, prepare_files
from ablation.errors import DataError
from ablation.techniques.technique import make
from tests.data.image_sources import class_tree, opened, picture, save, silent

SPEC = {"name": "folder", "root": "p"}


def prepared(tmp_path, spec=SPEC, size=16):
    return prepare(make("data", spec), size, tmp_path, tmp_path / "cache", silent)


@pytest.fixture
def base(tmp_path):
    class_tree(tmp_path / "p", {"a": 5, "b": 5})
    return tmp_path


def no_decoding(monkeypatch):
    def refuse(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(cache_module, "decode_all", refuse)


def test_the_second_call_decodes_nothing(base, monkeypatch):
    """The same folder comes back from its fingerprint alone."""
    folder = prepared(base)
    no_decoding(monkeypatch)
    assert prepared(base) == folder


@pytest.mark.parametrize("setting", [{"validation": 0.2}, {"longtail": {"name": "exponential", "imbalance": 2}}])
def test_settings_of_a_split_share_the_decoded_images(base, monkeypatch, setting):
    """A long tail or a validation part asks for no new decoding."""
    folder = prepared(base)
    no_decoding(monkeypatch)
    assert prepared(base, {**SPEC, **setting}) == folder


def test_another_place_is_decoded_anew_and_found_equal(base):
    """The place is in the fingerprint; what is trained on it goes by the digest of the pixels, so that moving the images redoes nothing."""
    folder = prepared(base)
    (base / "p").rename(base / "q")
    moved = prepared(base, {"name": "folder", "root": str(base / "q")})
    assert moved != folder
    assert open_dataset(moved).digest == open_dataset(folder).digest


def set_times(folder):
    """All times of an archive's files that can be set."""
    for path in folder.rglob("*"):
        os.utime(path, (315532800, 315532800))


def twins(tmp_path, ending):
    """Two folders of images whose names, sizes and times are equal, and whose pixels are not."""
    for seed, root in enumerate(("raw", "denoised")):
        for c in "ab":
            for i in range(4):
                save(tmp_path / root / c / f"{i}.{ending}", picture(100 * seed + 10 * ord(c) + i))
        set_times(tmp_path / root)
    sizes = [
        sorted((path.relative_to(tmp_path / root), path.stat().st_size) for path in (tmp_path / root).rglob("*.*"))
        for root in ("raw", "denoised")
    ]
    assert sizes[0] == sizes[1]


def test_two_data_sets_that_look_alike_from_outside_are_two(tmp_path):
    """Equal names, sizes and times, as of uncompressed images out of archives, are not the same images."""
    twins(tmp_path, "bmp")
    raw, denoised = (prepared(tmp_path, {"name": "folder", "root": root}) for root in ("raw", "denoised"))
    assert raw != denoised
    assert open_dataset(raw).digest != open_dataset(denoised).digest


@pytest.mark.parametrize("way", ["swapped", "linked", "unpacked over"])
def test_other_images_in_the_same_place_are_seen(tmp_path, way):
    """Another data set that takes the place of the first, with the same names, sizes and times, is decoded anew."""
    twins(tmp_path, "bmp")
    place = tmp_path / "p"
    if way == "linked":
        place.symlink_to(tmp_path / "raw")
    else:
        shutil.copytree(tmp_path / "raw", place)
    before = open_dataset(prepared(tmp_path)).digest
    match way:
        case "swapped":
            place.rename(tmp_path / "old")
            (tmp_path / "denoised").rename(place)
        case "linked":
            place.unlink()
            place.symlink_to(tmp_path / "denoised")
        case "unpacked over":
            shutil.copytree(tmp_path / "denoised", place, dirs_exist_ok=True)
            set_times(place)
    assert open_dataset(prepared(tmp_path)).digest != before


@pytest.mark.parametrize("change", ["first", "middle", "last"])
def test_content_counts_even_if_no_time_tells(tmp_path, monkeypatch, change):
    """On a file system without times of change, a sample of the content still tells two files from each other."""
    monkeypatch.setattr(cache_module, "_file_states", lambda source_files: (["same"] * len(source_files.files), []))
    count = 6000
    images, labels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8), np.arange(count) % 2
    spec = {"name": "npz", "file": "x.npz"}
    np.savez(tmp_path / "x.npz", train_images=images, train_labels=labels)
    before = prepared(tmp_path, spec)
    images[{"first": slice(0, 1000), "middle": slice(2500, 3500), "last": slice(5000, 6000)}[change]] ^= 1
    np.savez(tmp_path / "x.npz", train_images=images, train_labels=labels)
    assert prepared(tmp_path, spec) != before


@pytest.mark.parametrize("change", ["touch", "replace", "rename", "add", "size", "fit", "test"])
def test_whatever_changes_pixels_or_labels_is_decoded_anew(base, change):
    """The fingerprint follows names, sizes, times and settings."""
    folder, image, spec, size = prepared(base), base / "p" / "a" / "0.png", dict(SPEC), 16
    match change:
        case "touch":
            os.utime(image, ns=(1, 1))
        case "replace":
            save(image, picture(77))
        case "rename":
            image.rename(image.with_name("x.png"))
        case "add":
            save(base / "p" / "a" / "new.png")
        case "size":
            size = 8
        case "fit":
            spec["fit"] = "pad"
        case "test":
            spec["test"] = 0.4
    assert prepared(base, spec, size) != folder


def test_a_table_saved_while_its_files_are_looked_at_is_another(tmp_path):
    """What was read of it counts, and not only how it lies there once it is decoded."""
    for i in range(6):
        save(tmp_path / f"{i}.png", picture(i))
    table, source = tmp_path / "labels.csv", make("data", {"name": "csv", "file": "labels.csv"})
    texts = ["".join(["image,label\n", *(f"{i}.png,{'ab'[(i + turn) % 2]}\n" for i in range(6))]) for turn in (0, 1)]
    table.write_text(texts[0])
    files = find_files(source, 16, tmp_path)
    table.write_text(texts[1])
    old = prepare_files(source, files, tmp_path / "cache", silent)
    new = prepare(source, 16, tmp_path, tmp_path / "cache", silent)
    assert open_dataset(new).labels_N.tolist() == [1 - label for label in open_dataset(old).labels_N.tolist()]


def test_the_digest_follows_content_and_not_times(base):
    """Touched files are decoded again and found equal; one changed pixel is another digest."""
    before = open_dataset(prepared(base)).digest
    os.utime(base / "p" / "a" / "0.png", ns=(1, 1))
    assert open_dataset(prepared(base)).digest == before
    save(base / "p" / "a" / "0.png", picture(77))
    assert open_dataset(prepared(base)).digest != before


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "meta.json").unlink(),
        lambda folder: (folder / "meta.json").write_text("{"),
        lambda folder: (folder / "meta.json").write_text("[]"),
        lambda folder: (folder / "meta.json").write_text('{"format": 0, "files": {}}'),
        lambda folder: (folder / "labels.npy").unlink(),
        lambda folder: os.truncate(folder / "images.npy", 300),
    ],
    ids=["no meta", "half meta", "foreign meta", "old format", "no labels", "short images"],
)
def test_a_damaged_folder_is_built_again(base, damage):
    """A truncated or foreign folder is no dataset, and the next call repairs it."""
    folder = prepared(base)
    before = open_dataset(folder)
    digest = before.digest
    del before
    damage(folder)
    with pytest.raises(DataError, match="holds no complete decoded source"):
        open_dataset(folder)
    assert prepared(base) == folder
    assert open_dataset(folder).digest == digest


def test_meta_is_written_last(base, monkeypatch):
    """When meta.json is written every other file is there, and the folder does not have its name yet."""
    seen = {}
    write = cache_module._write_meta

    def watched(folder, meta):
        seen["files"] = {path.name for path in folder.iterdir()}
        seen["named"] = [path for path in folder.parent.iterdir() if path.is_dir() and not path.name.endswith(".partial")]
        write(folder, meta)

    monkeypatch.setattr(cache_module, "_write_meta", watched)
    folder = prepared(base)
    assert seen["files"] == {path.name for path in folder.iterdir()} - {"meta.json"}
    assert seen["named"] == []


KILLED = """
import os, sys
from pathlib import Path
from ablation.data import cache, prepare
from ablation.techniques.technique import make
setattr(cache, sys.argv[2], lambda *arguments: os._exit(9))
prepare(make("data", {"name": "folder", "root": "p"}), 16, Path(sys.argv[1]), Path(sys.argv[1]) / "cache", print)
"""


@pytest.mark.parametrize("place", ["_digest", "_write_meta"])
def test_a_killed_preparation_leaves_nothing_that_counts(base, place):
    """After a kill the next call builds the whole; no half-written folder has its name."""
    environment = {**os.environ, "PYTHONPATH": str(Path(cache_module.__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", KILLED, str(base), place], env=environment, check=False).returncode == 9
    assert [path.suffix for path in (base / "cache").iterdir() if path.is_dir()] == [".partial"]
    folder = prepared(base)
    assert len(open_dataset(folder).labels_N) == 10
    assert [path for path in (base / "cache").iterdir() if path.is_dir()] == [folder]


def test_another_host_decodes_beside(base, monkeypatch):
    """Where no lock keeps hosts apart: neither touches what the other has half written, and what is there first stays."""
    first, made = prepared(base), []
    shutil.rmtree(first)
    write_meta = cache_module._write_meta

    def meanwhile(folder, meta):
        write_meta(folder, meta)
        if not made:
            made.append(folder)
            monkeypatch.setattr(cache_module, "host", lambda: "elsewhere")
            monkeypatch.setattr(cache_module, "FileLock", lambda path: contextlib.nullcontext())
            made.append((prepared(base) / "meta.json").stat().st_ino)

    monkeypatch.setattr(cache_module, "_write_meta", meanwhile)
    assert prepared(base) == first
    assert (first / "meta.json").stat().st_ino == made[1]
    assert [path for path in (base / "cache").iterdir() if path.is_dir()] == [first]


def test_two_at_once_decode_once(base, monkeypatch):
    """The second waits for the first and uses what it made."""
    calls, decode_all = [], cache_module.decode_all

    def counted(*arguments):
        calls.append(1)
        return decode_all(*arguments)

    monkeypatch.setattr(cache_module, "decode_all", counted)
    threads = [threading.Thread(target=prepared, args=(base,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


def test_progress_is_told(base):
    """What is done, how far, and how much there is."""
    calls = []
    prepare(make("data", SPEC), 16, base, base / "cache", lambda *arguments: calls.append(arguments))
    assert calls == [("decoding folder into 1 MiB", 0, 10), ("decoding folder into 1 MiB", 10, 10)]


@pytest.mark.parametrize(
    ("size", "words"), [(1, "1 MiB"), (2**20, "1 MiB"), (2**20 + 1, "2 MiB"), (2**30, "1.0 GiB"), (185_846 * 224 * 224 * 3, "26.1 GiB")]
)
def test_the_size_is_told_before_the_disk_is_filled(size, words):
    """Whole MiB rounded up, from 1 GiB on GiB: ImageNet-LT at 224 pixels takes 26.1."""
    assert cache_module._format_bytes(size) == words


def test_long_lists_of_problems_are_cut(tmp_path):
    """Ten broken images are named, the others counted; the same goes for missing ones, which are told before anything is decoded."""
    root = class_tree(tmp_path / "p", {"a": 2})
    for i in range(1012):
        (root / "a" / f"broken{i:04}.png").write_bytes(b"")
    with pytest.raises(DataError) as error:
        prepared(tmp_path)
    lines = str(error.value).splitlines()
    assert lines[0] == "1012 of 1014 images cannot be read:"
    file = tmp_path / "cache" / "unreadable.txt"
    named = [f"a/broken{i:04}.png: is not an image in a known format" for i in range(1012)]
    assert lines[1:] == [*(f"  {line}" for line in named[:10]), f"  ... and 1,002 more; all of them are in {str(file)!r}"]
    assert file.read_text().splitlines() == named
    file.unlink()
    file.mkdir()  # which cannot be written
    with pytest.raises(DataError, match=r"^1012 of 1014 images cannot be read:\n  a/broken0000(.|\n)* and 1,002 more$"):
        prepared(tmp_path)


def test_missing_files_are_told_before_decoding(base, monkeypatch):
    """All of them are found in the one look at every file, and nothing is decoded for them in vain."""
    (base / "t.csv").write_text("image,label\n" + "".join(f"p/a/{i}.png,x\n" for i in range(20)), encoding="utf-8")
    no_decoding(monkeypatch)
    with pytest.raises(DataError) as error:
        prepared(base, {"name": "csv", "file": "t.csv"})
    lines = str(error.value).splitlines()
    assert lines[:2] == ["15 of 21 files cannot be read:", "  p/a/5.png: No such file or directory"]
    assert lines[-1].startswith("  ... and 5 more; all of them are in ")


@pytest.mark.parametrize(("written", "found"), [("p/a/0", "0.png"), ("p/a/0.JPG", "0.png"), ("p/A/0.png", None), ("p/a/7.png", None)])
def test_a_name_without_its_ending_is_told_with_the_file(base, written, found):
    """As in HAM10000, whose table has names without .jpg."""
    (base / "t.csv").write_text(f"image,label\n{written},x\np/a/1.png,y\n", encoding="utf-8")
    with pytest.raises(DataError) as error:
        prepared(base, {"name": "csv", "file": "t.csv"})
    hint = f"; {found!r} is there: expected the name as the file has it" if found else ""
    assert str(error.value).splitlines()[1] == f"  {written}: No such file or directory{hint}"


def test_every_file_is_asked_for_its_state_once(base, monkeypatch):
    """On a network a second look at a hundred thousand files would take minutes."""
    paths, stat = [], os.stat

    def counted(path, *arguments, **options):
        if str(path).endswith(".png"):
            paths.append(str(path))
        return stat(path, *arguments, **options)

    (base / "t.txt").write_text("".join(f"p/{'ab'[i % 2]}/{i // 2}.png {i % 2}\n" for i in range(10)), encoding="utf-8")
    monkeypatch.setattr(os, "stat", counted)
    prepared(base, {"name": "lists", "train_list": "t.txt"})
    assert sorted(paths) == sorted(str(base / "p" / c / f"{i}.png") for c in "ab" for i in range(5))


def test_a_full_disk_is_told_before_writing(base, monkeypatch):
    """The message says what is needed and what is left."""
    free = type("Usage", (), {"free": 100})()
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda _: free)
    with pytest.raises(DataError, match=r"the decoded images need 1 MiB; .* has 1 MiB left"):
        prepared(base)


def test_a_cache_that_is_a_file_is_told(base):
    """Whatever the system refuses becomes one message."""
    (base / "cache").write_text("")
    with pytest.raises(DataError, match="the data folder cannot be read, or not be written to"):
        prepared(base)


def test_the_dataset_has_the_types_promised(base):
    """Types and shapes are those that training relies on, and the pixels are a read-only memory map."""
    dataset = open_dataset(prepared(base))
    assert isinstance(dataset.images_NHWC, np.memmap)
    assert not dataset.images_NHWC.flags.writeable
    assert (dataset.images_NHWC.dtype, dataset.images_NHWC.shape) == (np.uint8, (10, 16, 16, 3))
    assert (dataset.labels_N.dtype, dataset.split_N.dtype, dataset.group_N.dtype) == (np.int64, np.int8, np.int64)
    assert len(dataset.digest) == 64
    assert json.loads((prepared(base) / "meta.json").read_text())["digest"] == dataset.digest


def test_names_are_a_sequence():
    """Indices from both ends, slices and iteration work; letters outside ASCII and undecodable bytes survive."""
    expected = ["a", "", "ünï", "\udcff.png"]
    encoded = [name.encode(errors="surrogateescape") for name in expected]
    names = Names(np.frombuffer(b"".join(encoded), dtype=np.uint8), np.cumsum([len(name) for name in encoded]))
    assert list(names) == expected
    assert names[-1] == expected[-1]
    assert names[1:3] == expected[1:3]
    with pytest.raises(IndexError):
        names[4]


def test_digits_need_no_files(tmp_path):
    """1,797 images of 8 x 8 with grey values up to 255, a fifth of each class being the test."""
    from sklearn.datasets import load_digits

    dataset = opened("digits", tmp_path, 224)
    digits = load_digits()
    assert dataset.images_NHWC.shape == (1797, 8, 8, 3)
    assert np.array_equal(dataset.labels_N, digits.target)
    assert np.abs(dataset.images_NHWC[..., 0] - digits.images * 255 / 16).max() <= 0.5
    assert (dataset.images_NHWC[..., 0] == dataset.images_NHWC[..., 2]).all()
    counts = np.bincount(digits.target)
    assert np.bincount(dataset.labels_N[dataset.split_N == 2]).tolist() == [int(0.2 * n + 0.5) for n in counts]
