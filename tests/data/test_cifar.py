import hashlib
import io
import json
import os
import pickle
import socket
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ablation.data import cifar, open_dataset, prepare, split
from ablation.errors import ConfigError, DataError
from ablation.techniques.technique import make
from tests.data.image_sources import found, opened, picture, save, silent

SHARDS = Path(__file__).parents[3] / "shared" / "data" / "cifar10"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


# --- python batches


def old_pickle(text):
    """A string as Python 2 pickles it."""
    return b"U" + bytes([len(text)]) + text.encode()


def batch_bytes(images_NHWC, labels, names, label_key="labels"):
    """A batch in the published form: protocol 2 with Python 2 strings, numbers for the dtype's flags, NumPy's old module."""
    planes = images_NHWC.transpose(0, 3, 1, 2).reshape(len(labels), -1).tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + old_pickle("b") + b"\x87R("
        b"K\x01M" + len(labels).to_bytes(2, "little") + b"M" + (3072).to_bytes(2, "little") + b"\x86"
        b"cnumpy\ndtype\n" + old_pickle("u1") + b"K\x00K\x01\x87R(K\x03" + old_pickle("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + len(planes).to_bytes(4, "little") + planes + b"tb"
    )
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    texts = b"](" + b"".join(map(old_pickle, names)) + b"e"
    items = old_pickle("data") + array + old_pickle(label_key) + numbers + old_pickle("filenames") + texts
    return b"\x80\x02}(" + items + b"u."


def fake_batches(kind, per_batch=12):
    """Each batch file's bytes, and the pixels and labels in all of them."""
    files, images, labels = {}, [], []
    for b, name in enumerate(kind.batches):
        generator = np.random.default_rng(b)
        images.append(generator.integers(0, 256, (per_batch, 32, 32, 3), dtype=np.uint8))
        labels.append([(b + i) % len(kind.classes) for i in range(per_batch)])
        files[name] = batch_bytes(images[-1], labels[-1], [f"{name}_{i}.png" for i in range(per_batch)], kind.batch_labels)
    return files, np.concatenate(images), np.concatenate(labels)


def trust(monkeypatch, kind, files):
    """Make the checksums those of the files."""
    sums = {name: (hashlib.md5(files[name]).hexdigest(), part) for name, (_, part) in kind.batches.items()}
    monkeypatch.setattr(cifar, kind.name.upper(), replace(kind, batches=sums))


def write_batches(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def write_archive(path, folder, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in reversed(files.items()):
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("place", ["folder", "own folder", "archive"])
@pytest.mark.parametrize("kind", [cifar.CIFAR10, cifar.CIFAR100], ids=["cifar10", "cifar100"])
def test_python_batches_are_read_from_each_place(tmp_path, monkeypatch, kind, place):
    """The folder, its parent and the archive give the same images, in the published order; nothing is extracted."""
    files, images_NHWC, labels_N = fake_batches(kind)
    trust(monkeypatch, kind, files)
    match place:
        case "folder":
            write_batches(tmp_path / "data" / kind.folder, files)
        case "own folder":
            write_batches(tmp_path / "data", files)
        case "archive":
            write_archive(tmp_path / "data" / kind.archive, kind.folder, files)
    before = sorted((tmp_path / "data").iterdir())
    dataset = opened(kind.name, tmp_path, 224)
    assert np.array_equal(dataset.images_NHWC, images_NHWC)
    assert dataset.labels_N.tolist() == labels_N.tolist()
    assert np.bincount(dataset.split_N).tolist() == [len(labels_N) - 12, 0, 12]
    assert dataset.classes == kind.classes
    assert dataset.names[0] == f"{next(iter(kind.batches))}_0.png"
    assert dataset.original_order
    assert sorted((tmp_path / "data").iterdir()) == before


def test_the_facts_are_torchvisions():
    """Names, folders and checksums are those that torchvision lists, and the classes are in its order."""
    import torchvision.datasets

    for kind in (cifar.CIFAR10, cifar.CIFAR100):
        published = getattr(torchvision.datasets, kind.name.upper())
        listed = [(name, (checksum, 0)) for name, checksum in published.train_list] + [
            (name, (checksum, 2)) for name, checksum in published.test_list
        ]
        assert list(kind.batches.items()) == listed
        assert (kind.folder, kind.archive) == (published.base_folder, published.filename)
        assert f"{kind.batch_labels[:-1]}" in ("label", published.meta["key"].removesuffix("_names"))
    assert cifar.CIFAR10.classes == CLASSES
    assert len(set(cifar.CIFAR100.classes)) == 100
    assert list(cifar.CIFAR100.classes) == sorted(cifar.CIFAR100.classes)


def test_a_file_with_another_checksum_is_not_opened(tmp_path):
    """Only the published bytes are unpickled."""
    files, _, _ = fake_batches(cifar.CIFAR10)
    write_batches(tmp_path / "data" / "cifar-10-batches-py", files)
    with pytest.raises(DataError, match="data_batch_1 is not the published file"):
        opened("cifar10", tmp_path)


class Malicious:
    """A pickle of this runs a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_is_refused_even_with_the_right_checksum(tmp_path, monkeypatch, protocol):
    """Nothing but arrays and plain values is made; the command does not run."""
    files, _, _ = fake_batches(cifar.CIFAR10)
    files["data_batch_3"] = pickle.dumps({"data": Malicious(f"touch {tmp_path}/ran")}, protocol=protocol)
    trust(monkeypatch, cifar.CIFAR10, files)
    write_batches(tmp_path / "data", files)
    with pytest.raises(DataError, match=r"data_batch_3 is not read: it asks for \w+\.system, which is neither an array nor a plain value"):
        opened("cifar10", tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["eval", "getattr", "exec", "__import__"])
def test_no_builtin_function_is_admitted(name):
    """Builtins are reached as values only."""
    with pytest.raises(pickle.UnpicklingError, match=f"builtins.{name}"):
        cifar.ArrayUnpickler(io.BytesIO(f"cbuiltins\n{name}\n.".encode())).load()


def test_a_missing_batch_is_named(tmp_path, monkeypatch):
    """A half-copied folder or archive is not taken for a whole one."""
    files, _, _ = fake_batches(cifar.CIFAR10)
    del files["data_batch_4"]
    write_batches(tmp_path / "one", files)
    write_archive(tmp_path / "two" / "cifar-10-python.tar.gz", "cifar-10-batches-py", files)
    for root in ("one", "two"):
        with pytest.raises(DataError, match="lacks data_batch_4; expected data_batch_1"):
            opened({"name": "cifar10", "root": root}, tmp_path)


def test_a_damaged_archive_is_told(tmp_path):
    """The way out is in the message."""
    files, _, _ = fake_batches(cifar.CIFAR10)
    path = tmp_path / "data" / "cifar-10-python.tar.gz"
    write_archive(path, "cifar-10-batches-py", files)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"is damaged .*; delete it to have it downloaded again"):
        opened("cifar10", tmp_path)


# --- parquet shards


def encoded(image, kind="PNG"):
    stream = io.BytesIO()
    image.save(stream, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return stream.getvalue()


def write_shard(path, labels, seed=0, image="img", label="label", classes=CLASSES, kind="PNG", broken=(), rows=5, named=True):
    """A shard in the hub's layout, its images random."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [{"bytes": encoded(picture(100 * seed + i, 32, 32), kind), "path": f"{seed}-{i}.png"} for i in range(len(labels))]
    for i in broken:
        cells[i]["bytes"] = b"broken" if i % 2 else None
    fields = [pa.field("bytes", pa.binary()), *([pa.field("path", pa.string())] if named else [])]
    table = pa.table({image: pa.array(cells, pa.struct(fields)), label: pa.array(labels)})
    if classes:
        info = {"info": {"features": {image: {"_type": "Image"}, label: {"names": list(classes), "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, path, row_group_size=rows)


def write_both(folder, **settings):
    write_shard(folder / "train-00000-of-00002.parquet", [*range(10), 3, 3], 1, **settings)
    write_shard(folder / "train-00001-of-00002.parquet", list(range(10)), 2, **settings)
    write_shard(folder / "test-00000-of-00001.parquet", list(range(10)), 3, **settings)


@pytest.mark.parametrize("place", ["", "data", "plain_text"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("image", ["img", "image"])
def test_shards_are_read_in_the_hubs_layouts(tmp_path, place, kind, image):
    """Pixels, labels and names are the shards', in their order, over several row groups."""
    write_both(tmp_path / "data" / place, kind=kind, image=image)
    dataset = opened("cifar10", tmp_path)
    assert dataset.labels_N.tolist() == [*range(10), 3, 3, *range(10), *range(10)]
    assert dataset.split_N.tolist() == [0] * 22 + [2] * 10
    assert dataset.names[12] == "2-0.png"
    assert dataset.classes == CLASSES
    for i, (seed, place_in_shard) in {0: (1, 0), 11: (1, 11), 12: (2, 0), 31: (3, 9)}.items():
        assert np.array_equal(dataset.images_NHWC[i], np.asarray(picture(100 * seed + place_in_shard, 32, 32)))


def test_shards_of_cifar100_have_fine_labels(tmp_path):
    """Without names in the schema the known ones are used."""
    for name in ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"):
        write_shard(tmp_path / "data" / name, [0, 99], label="fine_label", classes=(), named=False)
    dataset = opened("cifar100", tmp_path)
    assert (dataset.classes[0], dataset.classes[99], len(dataset.classes)) == ("apple", "worm", 100)
    assert dataset.names[1] == "train-00000-of-00001.parquet, row 1"


def test_class_names_come_from_the_schema(tmp_path):
    """The labels mean what the shards say that they mean."""
    write_both(tmp_path / "data", classes=CLASSES[::-1])
    assert opened("cifar10", tmp_path).classes == CLASSES[::-1]


def test_other_data_of_ten_classes_are_not_cifar(tmp_path):
    """Shards of digits have the layout, too."""
    write_both(tmp_path / "data", classes=[str(digit) for digit in range(10)])
    with pytest.raises(DataError, match=r"has the class '0'; expected the classes of CIFAR-10: airplane, automobile, bird"):
        opened("cifar10", tmp_path)


def test_long_row_groups_are_decoded_in_parts(tmp_path, monkeypatch):
    """However rows are grouped and cut into tasks, the digest is the same."""
    digests = set()
    for rows, per_task in ((5, 2500), (100, 3), (100, 2500)):
        monkeypatch.setattr(cifar, "ROWS_PER_TASK", per_task)
        write_both(tmp_path / f"{rows}-{per_task}", rows=rows)
        digests.add(opened({"name": "cifar10", "root": f"{rows}-{per_task}"}, tmp_path).digest)
    assert len(digests) == 1


def test_historical_indices_are_refused_for_shards(tmp_path):
    """Shards do not keep the original order, so the published subset cannot be named."""
    write_both(tmp_path / "data")
    spec = {"name": "cifar10", "longtail": {"name": "exponential", "imbalance": 1, "indices": "historical"}}
    with pytest.raises(ConfigError, match=r"data\.longtail\.indices: found 'historical'.*CIFAR's python batches"):
        split(opened(spec, tmp_path), make("data", spec), 0)


def test_unreadable_rows_are_all_named(tmp_path):
    """Rows without bytes and with broken bytes are listed with their shard."""
    write_both(tmp_path / "data", broken=(2, 7))
    with pytest.raises(DataError) as error:
        opened("cifar10", tmp_path)
    assert str(error.value).startswith("6 of 32 images cannot be read:\n  train-00000-of-00002.parquet, row group 0, row 2: ")
    assert "test-00000-of-00001.parquet, row group 1, row 2: is not an image in a known format" in str(error.value)


def spoil(folder, how):
    match how:
        case "missing shard":
            (folder / "train-00001-of-00002.parquet").unlink()
        case "no test":
            (folder / "test-00000-of-00001.parquet").unlink()
        case "pointer":
            (folder / "train-00001-of-00002.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")
        case "label":
            write_shard(folder / "test-00000-of-00001.parquet", [0, 10])
        case "negative":
            write_shard(folder / "test-00000-of-00001.parquet", [0, -1])
        case "null":
            write_shard(folder / "test-00000-of-00001.parquet", [0, None])
        case "columns":
            write_shard(folder / "test-00000-of-00001.parquet", [0], image="picture")
        case "classes":
            write_shard(folder / "test-00000-of-00001.parquet", [0], classes=CLASSES[::-1])
        case "three classes":
            write_shard(folder / "train-00000-of-00002.parquet", [0], classes=CLASSES[:3])


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing shard", "has 1 train shards, train-00000-of-00002.parquet; expected 2"),
        ("no test", "has 2 training and 0 test shards; expected some of both"),
        ("pointer", "is not a complete parquet file"),
        ("label", "has the label 10; expected 0 to 9, one of 10 classes"),
        ("negative", "has the label -1"),
        ("null", "has None as label in row 1"),
        ("columns", "has the columns picture, label; expected img or image"),
        ("classes", "name different classes"),
        ("three classes", "has 3 classes; expected the 10 of CIFAR-10"),
    ],
)
def test_what_is_wrong_with_shards_is_told(tmp_path, how, words):
    """Half-downloaded, foreign or inconsistent shards are errors with the file's name."""
    write_both(tmp_path / "data")
    spoil(tmp_path / "data", how)
    with pytest.raises(DataError) as error:
        opened("cifar10", tmp_path)
    assert words in str(error.value)


# --- class folders


def class_folders(root, classes=CLASSES, size=32):
    for part in ("train", "test"):
        for c, name in enumerate(classes):
            save(root / part / name / "0.png", picture(c, size, size))


def test_class_folders_are_read(tmp_path):
    """train/CLASS and test/CLASS give the known order of classes."""
    class_folders(tmp_path / "data")
    dataset = opened("cifar10", tmp_path)
    assert dataset.classes == CLASSES
    assert dataset.split_N.tolist() == [0] * 10 + [2] * 10
    assert np.array_equal(dataset.images_NHWC[3], np.asarray(picture(3, 32, 32)))


@pytest.mark.parametrize(("train", "test"), [("Train", "Test"), ("training", "TESTING"), ("train", "eval")])
def test_class_folders_have_many_names(tmp_path, train, test):
    """They are not passed by for a download because of a capital."""
    class_folders(tmp_path / "data")
    (tmp_path / "data" / "train").rename(tmp_path / "data" / train)
    (tmp_path / "data" / "test").rename(tmp_path / "data" / test)
    assert opened("cifar10", tmp_path).split_N.tolist() == [0] * 10 + [2] * 10
    assert found("cifar10", tmp_path).split_origin == f"{train}/ and {test}/ folders"


def test_class_folders_without_a_test_are_told(tmp_path):
    """A test set drawn from CIFAR's training images is not CIFAR's."""
    class_folders(tmp_path / "data")
    (tmp_path / "data" / "test").rename(tmp_path / "data" / "val")
    with pytest.raises(DataError, match="has train and val and no folder of test images; expected test/CLASS/ beside it"):
        opened("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("classes", "size", "words"),
    [
        (CLASSES[1:], 32, "lack airplane; expected CIFAR-10's 10 classes"),
        ((*CLASSES, "tram"), 32, "have the unknown tram"),
        (CLASSES, 33, "train/airplane/0.png: is 33 x 33 pixels; expected 32 x 32"),
    ],
)
def test_class_folders_that_are_not_cifars_are_told(tmp_path, classes, size, words):
    """Another set of classes or another size is another data set."""
    class_folders(tmp_path / "data", classes, size)
    with pytest.raises(DataError) as error:
        opened("cifar10", tmp_path)
    assert words in str(error.value)


# --- nearly


@pytest.fixture
def no_network(monkeypatch):
    """Every attempt to look up a host fails at once."""

    def refuse(*_, **__):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


BATCHES = tuple(cifar.CIFAR10.batches)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([f"cifar/cifar-10-batches-py/{name}" for name in BATCHES], "one folder too low; write root: ROOT/cifar"),
        ([f"cifar10/{name}" for name in BATCHES], "one folder too low; write root: ROOT/cifar10"),
        (["downloads/cifar-10-python.tar.gz"], "one folder too low; write root: ROOT/downloads"),
        (["train", "test", "meta"], "'ROOT' holds CIFAR-100, not CIFAR-10; expected data: {name: cifar100}"),
        (["cifar-10-python.tar"], "found 'cifar-10-python.tar' in 'ROOT', which is nearly CIFAR-10"),
        (["cifar-10-python (1).tar.gz"], "which is nearly CIFAR-10"),
        (["CIFAR-10-python.tar.gz"], "which is nearly CIFAR-10"),
        (["cifar-10-batches-bin/data_batch_1.bin"], "found 'cifar-10-batches-bin' in"),
        (["cifar10_train.parquet"], "expected cifar-10-batches-py/ or cifar-10-python.tar.gz"),
        (["cifar-test.parquet"], "which is nearly CIFAR-10"),
    ],
)
def test_what_is_nearly_there_is_not_downloaded_beside_it(tmp_path, no_network, files, words):
    """A folder too high, another form, another spelling or the other data set is told."""
    root = tmp_path / "data"
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    with pytest.raises(DataError) as error:
        opened("cifar10", tmp_path)
    assert words.replace("ROOT", str(root)) in str(error.value)


def test_a_root_that_is_a_file_is_told(tmp_path, no_network):
    """It is not taken for a folder to download into."""
    (tmp_path / "data").write_bytes(b"x")
    with pytest.raises(DataError, match="is a file; expected a folder"):
        opened("cifar10", tmp_path)


def test_other_data_are_no_reason_not_to_download(tmp_path, no_network):
    """CIFAR-100 beside it, CIFAR-10-C or whatever else a folder of data holds; the other of the two is named, though."""
    shards = ("notes.parquet", "housing_train.parquet", "cifar100_train.parquet")
    folders = ("mnist/x", "train/a/notes.txt", "train/cat/0.jpg", "train/dog/0.jpg", "val/a/notes.txt")
    for name in ("cifar-100-python/train", "cifar-100-python/test", "cifar-10-c.tar", *shards, *folders):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"could not be downloaded .*\. CIFAR-100 is there, which data: cifar100 reads\."):
        opened("cifar10", tmp_path)


def test_the_published_sets_are_named(tmp_path, monkeypatch):
    """Batches and shards have them."""
    files, _, _ = fake_batches(cifar.CIFAR10)
    trust(monkeypatch, cifar.CIFAR10, files)
    write_batches(tmp_path / "data", files)
    write_both(tmp_path / "shards")
    for root in ("data", "shards"):
        assert found({"name": "cifar10", "root": root}, tmp_path).split_origin == "published training and test sets"


# --- download


def test_without_files_and_network_one_message_names_the_ways_out(tmp_path, no_network):
    """Where it looked, what may lie there, and the profile that needs no data; nothing is left to be taken for data."""
    with pytest.raises(DataError) as error:
        opened("cifar10", tmp_path)
    for words in (
        f"found no CIFAR-10 in '{tmp_path / 'data'}'",
        "could not be downloaded",
        "Name or service not known",
        "cifar-10-batches-py/ or cifar-10-python.tar.gz",
        "train-*.parquet and test-*.parquet",
        "train/CLASS/ and test/CLASS/",
        "--profile quick",
    ):
        assert words in str(error.value)
    assert [path for path in (tmp_path / "data").iterdir() if path.suffix != ".lock"] == []
    assert socket.getdefaulttimeout() is None


def test_a_download_is_moved_to_its_name_when_whole(tmp_path, monkeypatch):
    """The archive appears at once under its name and is then read."""
    import torchvision.datasets.utils

    files, images_NHWC, _ = fake_batches(cifar.CIFAR10)
    trust(monkeypatch, cifar.CIFAR10, files)

    def download(url, folder, name, md5):
        assert socket.getdefaulttimeout() == cifar.NETWORK_TIMEOUT
        assert url.endswith("cifar-10-python.tar.gz")
        assert len(md5) == 32
        write_archive(Path(folder) / name, "cifar-10-batches-py", files)
        assert not (tmp_path / "data" / name).exists()

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", download)
    assert np.array_equal(opened("cifar10", tmp_path).images_NHWC, images_NHWC)
    assert {path.name for path in (tmp_path / "data").iterdir()} - {".cifar10.lock"} == {"cifar-10-python.tar.gz"}


@pytest.mark.parametrize("error", [RuntimeError("File not found or corrupted."), OSError("timed out"), ConnectionResetError("reset")])
def test_a_broken_download_leaves_nothing(tmp_path, monkeypatch, error):
    """What came so far is removed, and the reason is in the message."""
    import torchvision.datasets.utils

    def download(url, folder, name, md5):
        (Path(folder) / name).write_bytes(b"half")
        raise error

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", download)
    with pytest.raises(DataError, match=str(error)):
        opened("cifar10", tmp_path)
    assert [path.name for path in (tmp_path / "data").iterdir() if path.suffix != ".lock"] == []


# --- the real images


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    if not SHARDS.is_dir():
        pytest.skip("CIFAR-10's shards are not at ../shared/data/cifar10")
    source = make("data", {"name": "cifar10", "root": str(SHARDS)})
    return open_dataset(prepare(source, 224, Path(), tmp_path_factory.mktemp("cifar10"), silent))


def test_the_real_images_are_all_there(real):
    """50,000 and 10,000 images of ten classes, with the known means of the channels."""
    assert real.images_NHWC.shape == (60000, 32, 32, 3)
    assert real.classes == CLASSES
    train = real.split_N == 0
    assert np.bincount(real.labels_N[train]).tolist() == [5000] * 10
    assert np.bincount(real.labels_N[~train]).tolist() == [1000] * 10
    assert np.abs(real.images_NHWC[train].mean((0, 1, 2)) / 255 - [0.4914, 0.4822, 0.4465]).max() < 1e-4


@pytest.mark.parametrize("seed", [0, 1])
def test_the_reports_split_has_27500_and_10000_images(real, seed):
    """The linear profile of the reports, with the whole test set."""
    source = make("data", {"name": "cifar10", "longtail": {"name": "linear", "largest": 5000, "smallest": 500}})
    parts = split(real, source, seed)
    assert parts.counts_C.tolist() == list(range(5000, 0, -500))
    assert (len(parts.train_N), len(parts.validation_N), len(parts.test_N)) == (27500, 0, 10000)


def test_pillow_decodes_the_real_images_alike(real):
    """A few rows, decoded here by hand, are the pixels in the cache."""
    rows = pq.read_table(SHARDS / "test-00000-of-00001.parquet").column("img")
    for i in (0, 1, 4999, 5000, 9999):
        expected = np.asarray(Image.open(io.BytesIO(rows[i].as_py()["bytes"])).convert("RGB"))
        assert np.array_equal(real.images_NHWC[50000 + i], expected)


def test_a_broken_stream_is_told(tmp_path):
    """A broken stream within the compressed archive is a damaged file, to be downloaded again, and no other error."""
    files = {name: name.encode() * 20_000 + os.urandom(2000).hex().encode() for name in cifar.CIFAR10.batches}
    archive = tmp_path / cifar.CIFAR10.archive
    write_archive(archive, cifar.CIFAR10.folder, files)
    content, messages = archive.read_bytes(), []
    for place in range(100, len(content) - 50, 400):
        archive.write_bytes(content[:place] + bytes(50) + content[place + 50 :])
        try:
            cifar._read_archive(cifar.CIFAR10, archive)
        except DataError as error:
            messages.append(str(error))
    assert any("invalid" in message for message in messages)  # zlib's words
