import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ablation.data import decoding
from ablation.data.decoding import Files, decode, decode_all, make_targets
from ablation.data.raster import pixels
from ablation.errors import DataError
from tests.data.image_sources import picture, save


def decoded(path, size=16, fit="squash"):
    return pixels(path, size, fit).astype(int)


def test_an_image_of_the_right_size_keeps_its_pixels(tmp_path):
    """Nothing is resampled where nothing has to be."""
    image = picture(0, 16, 16)
    for fit in ("crop", "pad", "squash", "exact"):
        assert np.array_equal(pixels(save(tmp_path / "a.png", image), 16, fit), np.asarray(image))


def test_crop_keeps_the_middle():
    """Of three equal vertical bands only the middle one is left."""
    bands_HWC = np.zeros((10, 30, 3), dtype=np.uint8)
    bands_HWC[:, :10], bands_HWC[:, 10:20], bands_HWC[:, 20:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    stream = io.BytesIO()
    Image.fromarray(bands_HWC).save(stream, "PNG")
    assert (pixels(stream, 10, "crop") == (0, 255, 0)).all()


def test_pad_keeps_everything_on_black(tmp_path):
    """A white image of 20 x 10 becomes a white band between black ones."""
    result_HWC = decoded(save(tmp_path / "a.png", Image.new("RGB", (20, 10), "white")), 20, "pad")
    assert (result_HWC[5:15] == 255).all()
    assert (result_HWC[:5] == 0).all()
    assert (result_HWC[15:] == 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1)])
@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_any_shape_can_be_fitted(tmp_path, shape, fit):
    """The thinnest images have a result of the size asked for."""
    assert decoded(save(tmp_path / "a.png", Image.new("RGB", shape, "white")), 8, fit).shape == (8, 8, 3)


def test_exact_refuses_another_size(tmp_path):
    """CIFAR's images are 32 x 32 or they are not CIFAR's."""
    task = Files(0, ("a.png",), (str(save(tmp_path / "a.png")),), 32, "exact")
    make_targets(tmp_path / "images.npy", 1, 32)
    assert decode(task, tmp_path / "images.npy") == ["a.png: is 20 x 16 pixels; expected 32 x 32"]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "RGBA", "LA"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    """A uniform grey is still that grey (or black and white) after decoding."""
    ending = {"CMYK": "tif", "YCbCr": "tif"}.get(mode, "png")
    grey = 255 if mode == "1" else 102
    image = Image.new("RGB", (16, 16), (grey, grey, grey)).convert(mode)
    assert np.abs(decoded(save(tmp_path / f"a.{ending}", image)) - grey).max() <= 2


@pytest.mark.parametrize(("wide", "narrow"), [(0, 0), (257, 1), (25700, 100), (32768, 128), (65535, 255)])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, wide, narrow):
    """A 16-bit grey value becomes value / 257."""
    for ending in ("png", "tif"):
        image = Image.fromarray(np.full((16, 16), wide, dtype=np.uint16))
        assert (decoded(save(tmp_path / f"a.{ending}", image)) == narrow).all()


@pytest.mark.parametrize(("dtype", "value", "words"), [(np.float32, 0.5, "floating-point"), (np.int32, 70000, "outside 0 ... 65535")])
def test_pixels_of_unknown_range_are_not_guessed(tmp_path, dtype, value, words):
    """Floating-point and 32-bit images are unreadable, with the reason."""
    path = save(tmp_path / "a.tif", Image.fromarray(np.full((16, 16), value, dtype=dtype)))
    make_targets(tmp_path / "images.npy", 1, 8)
    (problem,) = decode(Files(0, ("a.tif",), (str(path),), 8, "crop"), tmp_path / "images.npy")
    assert words in problem


def test_transparency_lies_over_white(tmp_path):
    """Half-transparent red is between red and white, and what is fully transparent is white whatever colour it hides."""
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 128))
    image.paste((0, 0, 255, 0), (0, 0, 16, 8))
    result_HWC = decoded(save(tmp_path / "a.png", image))
    assert (result_HWC[:8] == 255).all()
    assert np.abs(result_HWC[8:] - np.array([255, 127, 127])).max() <= 1


def test_a_transparent_palette_lies_over_white(tmp_path):
    """The colour that a GIF names transparent is white."""
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 0, 9, 9, 9] + [0] * 762)
    assert (decoded(save(tmp_path / "a.gif", image, transparency=1)) == 255).all()


def test_an_animation_gives_its_first_frame(tmp_path):
    """The later frames do not matter."""
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    path = save(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    assert np.abs(decoded(path) - np.array([255, 0, 0])).max() <= 1


@pytest.mark.parametrize(("orientation", "turns", "mirrored"), [(1, 0, False), (2, 0, True), (3, 2, False), (6, 3, False), (8, 1, False)])
def test_exif_orientation_is_applied(tmp_path, orientation, turns, mirrored):
    """The pixels are those that a viewer shows."""
    image = picture(0, 16, 16)
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = np.rot90(np.asarray(image), turns)
    assert np.array_equal(decoded(save(tmp_path / "a.png", image, exif=exif)), expected[:, ::-1] if mirrored else expected)


def test_a_large_jpeg_looks_the_same_although_it_is_decoded_small(tmp_path):
    """Decoding at a fraction of the size stays close to resizing the whole."""
    y, x = np.mgrid[0:800, 0:1200]
    image = Image.fromarray(np.stack([x * 255 // 1200, y * 255 // 800, (x + y) * 255 // 2000], axis=2).astype(np.uint8))
    expected = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC), dtype=int)
    assert np.abs(decoded(save(tmp_path / "a.jpg", image, quality=95), 32) - expected).max() <= 4


def png_of(width, height):
    """A PNG that says it is width x height and has almost no data."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not an image in a known format"),
        (b"<html>not found</html>", "is not an image in a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n", "is not an image in a known format"),
        (png_of(20000, 5000), "pixels"),
        (png_of(50000, 50000), "pixels"),
        (png_of(20, 20), "truncated"),
    ],
    ids=["empty", "page", "postscript", "large", "bomb", "truncated"],
)
def test_what_is_no_image_is_told(tmp_path, content, words):
    """A broken, foreign or oversized file is listed with the reason, and its neighbours are decoded."""
    (tmp_path / "bad.png").write_bytes(content)
    good = save(tmp_path / "good.png", Image.new("RGB", (8, 8), "white"))
    make_targets(tmp_path / "images.npy", 3, 8)
    task = Files(0, ("bad.png", "gone.png", "good.png"), (str(tmp_path / "bad.png"), str(tmp_path / "gone.png"), str(good)), 8, "crop")
    bad, gone = decode(task, tmp_path / "images.npy")
    assert bad.startswith("bad.png: ")
    assert words in bad
    assert gone == "gone.png: No such file or directory"
    assert (np.load(tmp_path / "images.npy")[2] == 255).all()


def many_files(tmp_path, num_tasks=3, bad=()):
    paths = [save(tmp_path / f"{i}.png", picture(i, 4, 4)) for i in range(9)]
    for i in bad:
        paths[i].write_bytes(b"")
    per_task = len(paths) // num_tasks
    tasks = [
        Files(start, tuple(p.name for p in paths[start : start + per_task]), tuple(map(str, paths[start : start + per_task])), 4, "exact")
        for start in range(0, 9, per_task)
    ]
    make_targets(tmp_path / "images.npy", 9, 4)
    return tasks


def test_many_processes_decode_what_one_decodes(tmp_path, monkeypatch):
    """The pixels and the problems are the same, in the same order, and progress ends at the total."""
    tasks = many_files(tmp_path, bad=(7, 2))
    alone, calls = decode_all(tasks, tmp_path / "images.npy", lambda *_: None), []
    expected = np.load(tmp_path / "images.npy")
    np.save(tmp_path / "images.npy", np.zeros_like(expected))
    monkeypatch.setattr(decoding, "MIN_FOR_PROCESSES", 1)
    together = decode_all(tasks, tmp_path / "images.npy", lambda done, total: calls.append((done, total)))
    assert together == alone == ["2.png: is not an image in a known format", "7.png: is not an image in a known format"]
    assert np.array_equal(np.load(tmp_path / "images.npy"), expected)
    assert calls == [(3, 9), (6, 9), (9, 9)]


def test_a_decoder_that_dies_is_told(tmp_path, monkeypatch):
    """The message says which images it had."""
    monkeypatch.setattr(decoding, "MIN_FOR_PROCESSES", 1)
    started = decoding._start_decoder

    def start_and_kill():
        decoder = started()
        decoder.kill()
        return decoder

    monkeypatch.setattr(decoding, "_start_decoder", start_and_kill)
    with pytest.raises(DataError, match=r"the process that decoded images \d to \d was ended from outside"):
        decode_all(many_files(tmp_path), tmp_path / "images.npy", lambda *_: None)


def test_an_interruption_ends_the_decoders(tmp_path, monkeypatch):
    """No process is left behind."""
    monkeypatch.setattr(decoding, "MIN_FOR_PROCESSES", 1)
    decoders, started = [], decoding._start_decoder

    def start():
        decoders.append(started())
        return decoders[-1]

    def interrupt(done, total):
        raise KeyboardInterrupt

    monkeypatch.setattr(decoding, "_start_decoder", start)
    with pytest.raises(KeyboardInterrupt):
        decode_all(many_files(tmp_path), tmp_path / "images.npy", interrupt)
    assert decoders
    assert all(decoder.returncode is not None for decoder in decoders)


def test_decoders_end_with_their_parent():
    """A decoder whose pipe closes ends by itself, as it does when its parent is killed."""
    decoder = decoding._start_decoder()
    decoder.stdin.close()
    assert decoder.wait(timeout=30) == 0
    decoder.stdout.close()


def test_names_of_any_bytes_reach_the_decoders(tmp_path, monkeypatch):
    """File names in any script, and those that are no text at all, are decoded and told alike."""
    monkeypatch.setattr(decoding, "MIN_FOR_PROCESSES", 1)
    names = ("ünï 猫.png", "\udcff.png")
    for name in names:
        save(tmp_path / "x.png", picture(0, 4, 4)).rename(tmp_path / name)
    make_targets(tmp_path / "images.npy", 3, 4)
    paths = tuple(str(tmp_path / name) for name in (*names, "gone \udcff.png"))
    problems = decode_all([Files(0, (*names, "gone \udcff.png"), paths, 4, "exact")], tmp_path / "images.npy", lambda *_: None)
    assert problems == ["gone \udcff.png: No such file or directory"]
    assert (np.load(tmp_path / "images.npy")[:2] == np.asarray(picture(0, 4, 4))).all()


def test_decoding_needs_no_torch():
    """A decoding process starts without importing it."""
    command = "import sys, ablation.data.decoding; print('torch' in sys.modules)"
    package = str(Path(decoding.__file__).parents[2])
    result = subprocess.run([sys.executable, "-c", command], cwd=package, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_a_file_that_breaks_while_it_is_read_is_named(tmp_path):
    """What is wrong with a whole shard, and not with one image, is one line with its name, and no end of the decoder."""

    def broken():
        raise OSError("Couldn't deserialize thrift")
        yield

    make_targets(tmp_path / "images.npy", 1, 4)
    task = SimpleNamespace(start=0, size=4, fit="exact", path="data/train-0.parquet", encoded=broken)
    assert decode(task, tmp_path / "images.npy") == ["train-0.parquet: Couldn't deserialize thrift"]
