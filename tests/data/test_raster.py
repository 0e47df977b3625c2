"""What is noticed of an image while it is decoded, and how the range of 16-bit images is set."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, features

from ablation.data.raster import FORMATS, FULL_RANGE, UnusableError, inspect_array, pixels, read_image, rgb
from tests.data.image_sources import picture


def encoded(image, kind="PNG", **options):
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream


def inspected(image, kind="PNG", size=16, **options):
    return read_image(encoded(image, kind, **options), size, "crop")[1]


def wide_png(levels_HWC, extra=b""):
    """A PNG of 16 bits with one to four channels, written from the format's description (Pillow writes grey ones only)."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, channels = levels_HWC.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels_HWC)
    return BytesIO(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def transparent_grey(level):
    """The chunk that makes one grey value transparent."""
    body = b"tRNS" + struct.pack(">H", level)
    return struct.pack(">I", 2) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize(
    "other",
    [("BMP", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True}), ("PNG", {"compress_level": 0}), ("PPM", {})],
)
def test_equal_pixels_have_one_digest_in_every_format(other):
    """The digest is that of the pixels, not of the file."""
    kind, options = other
    assert inspected(picture(1)).digest == inspected(picture(1), kind, **options).digest
    assert inspected(picture(1)).digest != inspected(picture(2)).digest


def test_one_changed_value_is_another_digest():
    """However small the image becomes in the end, all its pixels count."""
    image = picture(1, 64, 64)
    changed = image.copy()
    changed.putpixel((63, 0), tuple((value + 1) % 256 for value in image.getpixel((63, 0))))
    assert inspected(image, size=4).digest != inspected(changed, size=4).digest


def test_the_shape_counts():
    """4 x 9 pixels in one row after the other are not 9 x 4."""
    flat = np.zeros((4, 9, 3), dtype=np.uint8)
    flat[0, 0] = 1
    assert inspected(Image.fromarray(flat)).digest != inspected(Image.fromarray(flat.reshape(9, 4, 3))).digest


def test_grey_and_rgb_of_the_same_pixels_are_one_picture():
    """What counts is what training would see."""
    grey = picture(1).convert("L")
    assert inspected(grey).digest == inspected(grey.convert("RGB")).digest


def test_what_is_noticed():
    """Size before decoding, bits, and the range of values."""
    inspection = inspected(Image.fromarray(np.arange(10, 210, dtype=np.uint8).reshape(10, 20)))
    assert inspection[3:] == (20, 10, 8, 10, 209, 10, 209, *[False] * 6, True, FORMATS.index("PNG") + 1)
    wide = Image.fromarray(np.linspace(7, 4095, 200).astype(np.uint16).reshape(10, 20))
    assert inspected(wide)[3:8] == (20, 10, 16, 7, 4095)
    assert inspected(wide)[8:10] == (wide.getpixel((2, 0)), wide.getpixel((17, 9)))  # two of 200 values lie below, and two above


def test_the_size_of_a_jpeg_is_its_own_and_not_that_of_the_draft():
    """A large JPEG is decoded at a fraction of its size; it is still large."""
    assert inspected(picture(0, 800, 600), "JPEG", 32)[3:5] == (800, 600)


def jpeg(image, **options):
    """The bytes of a JPEG file."""
    file = BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def test_large_jpegs_are_compared_as_they_are_and_not_as_they_are_drafted():
    """A mark that a fraction of the size does not show makes two pictures; what a camera or a tool notes beside the pixels does not."""
    plain, marked = Image.new("RGB", (800, 800), "grey"), Image.new("RGB", (800, 800), "grey")
    marked.paste("white", (401, 401, 402, 402))
    noted = Image.Exif()
    noted[0x010E] = "by the sea"
    turned = Image.Exif()
    turned[0x0112] = 3
    files = jpeg(plain), jpeg(marked), jpeg(plain, exif=noted, comment="of an editor"), jpeg(plain, exif=turned)
    for size in (16, 500):  # at the second no fraction is decoded
        digests = [read_image(BytesIO(file), size, "crop")[1].digest for file in files[:3]]
        assert digests[0] == digests[2] != digests[1]
    assert read_image(BytesIO(files[3]), 16, "crop")[1].digest != read_image(BytesIO(files[0]), 16, "crop")[1].digest


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}], ids=["baseline", "progressive", "restarts"])
def test_what_follows_a_jpeg_is_no_part_of_it(options):
    """A phone's trailer makes no other picture of a copy, at any size that the model sees."""
    plain, other = jpeg(picture(1, 100, 100), **options), jpeg(picture(2, 100, 100), **options)
    for size in (16, 24, 32, 224):
        found = [read_image(BytesIO(file), size, "crop")[1] for file in (plain, plain + b"\0\0trailer \xff\xd9", other)]
        assert found[0].digest == found[1].digest != found[2].digest
        assert [one.is_cut for one in found] == [False] * 3


def test_equal_images_are_equal_whatever_the_size():
    """Else a drawn split would depend on the size that the model sees: a PNG of a JPEG is another picture at all sizes."""
    file = jpeg(picture(1, 100, 100))
    with Image.open(BytesIO(file)) as opened, BytesIO() as png:
        opened.save(png, "PNG")
        files = file, png.getvalue()
    digests = {tuple(read_image(BytesIO(file), size, "crop")[1].digest for file in files) for size in (16, 32, 224)}
    assert len(digests) == 1
    assert len(set(*digests)) == 2


def test_a_jpeg_without_its_end_is_told():
    """A file whose rest is zeros, as a crash leaves it, is decoded without a word, and partly grey."""
    file = jpeg(picture(1, 100, 100))
    kept = len(file) * 2 // 5
    cut = file[:kept] + bytes(len(file) - kept)
    assert [read_image(BytesIO(one), 32, "crop")[1].is_cut for one in (file, cut)] == [False, True]


def test_signed_values_are_refused(tmp_path):
    """Pillow would take -32 for 224."""
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(tmp_path / "signed.tif", tiffinfo={339: 2})
    with pytest.raises(UnusableError, match="has signed values of 8 bits; expected unsigned ones"):
        read_image(tmp_path / "signed.tif", 16, "crop")


def test_the_content_is_the_files_whatever_the_size():
    """So it tells the images of two places apart, and not those of two sizes."""
    files = jpeg(picture(1, 800, 600)), jpeg(picture(2, 800, 600))
    contents = [read_image(BytesIO(file), size, "crop")[1].content for file in files for size in (16, 224)]
    assert contents[0] == contents[1] != contents[2] == contents[3]


@pytest.mark.parametrize("levels", [255, 65535])
def test_white_may_be_zero(tmp_path, levels):
    """A TIFF of grey values may be a negative; with 16 bits as with 8 it is shown as it is meant."""
    grey = np.linspace(0, levels, 256).reshape(16, 16).astype(np.uint8 if levels == 255 else np.uint16)
    Image.fromarray(levels - grey).save(tmp_path / "negative.tif")
    stored = (tmp_path / "negative.tif").read_bytes()
    place = stored.index(struct.pack("<HHI", 262, 3, 1)) + 8
    (tmp_path / "negative.tif").write_bytes(stored[:place] + struct.pack("<H", 0) + stored[place + 2 :])
    shown = read_image(tmp_path / "negative.tif", 16, "exact")[0][..., 0]
    assert (shown.ravel()[0], shown.ravel()[-1]) == (0, 255)


def test_transparency_is_noticed():
    """Also where it is a fourth channel of something else; an opaque one is not."""
    image = picture(1).convert("RGBA")
    assert not inspected(image).has_alpha
    image.putpixel((3, 3), (1, 2, 3, 254))
    assert inspected(image).has_alpha


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_further_frames_are_noticed(kind):
    """An animation or a stack of pages is one image here, and that is kept."""
    more = {"save_all": True, "append_images": [picture(2), picture(3)]}
    assert inspected(picture(1), kind, **more).has_frames
    assert not inspected(picture(1), kind).has_frames


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_colour_of_16_bits_is_noticed(channels):
    """Pillow reads the upper 8 bits of all but grey."""
    levels_HWC = np.random.default_rng(0).integers(0, 65536, (8, 8, channels))
    pixels_HWC, inspection = read_image(wide_png(levels_HWC), 8, "exact")
    assert inspection.is_reduced == (channels > 1)
    assert inspection.bits == (16 if channels == 1 else 8)
    if channels == 3:
        assert np.abs(pixels_HWC.astype(int) - levels_HWC // 256).max() <= 1


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_a_range_makes_16_bit_images_use_all_of_8(bits):
    """The values from black to white that the study's file names become 0 to 255, rounded to the nearest."""
    top = 2**bits - 1
    levels_HW = np.linspace(0, top, 256).round().astype(np.uint16).reshape(16, 16)
    expected = np.rint(levels_HW.astype(float) * 255 / top)
    assert np.array_equal(pixels(encoded(Image.fromarray(levels_HW)), 16, "exact", (0, top))[..., 0], expected)


def test_the_whole_range_is_what_it_was():
    """Without a range a value v becomes round(v / 257), for all 65,536 of them."""
    levels_HW = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(np.asarray(rgb(Image.fromarray(levels_HW), FULL_RANGE))[..., 1], (levels_HW.astype(int) + 128) // 257)


def test_values_outside_a_range_are_black_or_white():
    """As in every viewer with a window."""
    levels_HW = np.array([[0, 99, 100, 200, 300, 301, 65535]], dtype=np.uint16)
    assert np.asarray(rgb(Image.fromarray(levels_HW), (100, 300)))[0, :, 0].tolist() == [0, 0, 0, 128, 255, 255, 255]


def test_a_range_leaves_images_of_8_bits_alone():
    """It is a matter of 16 bits."""
    assert np.array_equal(np.asarray(rgb(picture(1), (0, 100))), np.asarray(picture(1)))


@pytest.mark.parametrize("value_range", [FULL_RANGE, (0, 4095)])
def test_a_transparent_grey_of_16_bits_is_white(value_range):
    """As every other transparency lies over white; the value beside it is not touched."""
    levels_HWC = np.full((8, 8, 1), 1000)
    levels_HWC[:4] = 1001
    stored = pixels(wide_png(levels_HWC, transparent_grey(1000)), 8, "exact", value_range)
    assert (stored[4:] == 255).all()
    assert (stored[:4] == round(1001 * 255 / value_range[1])).all()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP", "AVIF"])
def test_further_frames_are_noticed_in_every_format(kind):
    """A sequence in any of them is read as its first frame."""
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    more = {"save_all": True, "append_images": [picture(2)]}
    assert inspected(picture(1), kind, **more).has_frames
    assert not inspected(picture(1), kind).has_frames


@pytest.mark.parametrize("orientation", [0, 1, 9, 65535])
def test_an_orientation_that_is_none_makes_no_other_picture(orientation):
    """Some cameras write 0, which turns nothing."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert inspected(picture(1), "JPEG", exif=exif).digest == inspected(picture(1), "JPEG").digest


def test_a_damaged_orientation_turns_nothing():
    """Pillow reads the pixels of a PNG whose EXIF data it cannot read."""
    assert inspected(picture(1), exif=b"Exif\0\0garbagegarbage").digest == inspected(picture(1)).digest


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16"])
def test_a_tiff_on_disk_is_turned_as_one_in_memory(tmp_path, mode, orientation):
    """Uncompressed ones, which Pillow maps into memory if it is given their path."""
    image = picture(1, 20, 30)
    image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "image.tif"
    image.save(path, exif=exif)
    upright = np.asarray(image)
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: upright[::-1].swapaxes(0, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: upright[:, ::-1].swapaxes(0, 1),
    }[orientation]
    for encoding in (path, BytesIO(path.read_bytes())):
        assert np.array_equal(
            pixels(encoding, 16, "squash"), pixels(encoded(Image.fromarray(turned), "TIFF", compression="tiff_lzw"), 16, "squash")
        )


def test_a_picture_that_is_turned_is_another():
    """Its pixels lie elsewhere."""
    exif = Image.Exif()
    exif[0x0112] = 6
    assert inspected(picture(1), "JPEG", exif=exif).digest != inspected(picture(1), "JPEG").digest


def hollowed(image, share, **options):
    """A JPEG that has only this share of its bytes, and an end nonetheless."""
    content = encoded(image, "JPEG", **options).getvalue()
    return BytesIO(content[: int(share * len(content))] + b"\xff\xd9")


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [8, 96], ids=["decoded at a part of its size", "decoded in full"])
def test_a_jpeg_whose_data_end_halfway_is_noticed(mode, size):
    """It has an end, and decoders fill what is not there with grey."""
    image = picture(1, 96, 96).convert(mode)
    for share, expected in ((0.3, True), (0.7, True), (1, False)):
        noticed = read_image(hollowed(image, share), size, "crop")[1]
        assert (noticed.is_hollow, noticed.is_cut) == (expected, False)


@pytest.mark.parametrize("rows", [[], [(0, 96)], [(0, 20), (76, 96)], [(0, 48)], [(88, 96)]], ids=str)
def test_pictures_with_grey_of_their_own_are_whole(rows):
    """Of one grey throughout, with a frame of it, with a grey sky, or a narrow band below."""
    pixels_HWC = np.asarray(picture(1, 96, 96)).copy()
    for start, end in rows:
        pixels_HWC[start:end] = 128
    assert not inspected(Image.fromarray(pixels_HWC), "JPEG", quality=95).is_hollow


def test_grey_pixels_are_noticed_in_every_mode():
    """However many channels they are stored in."""
    grey = picture(1).convert("L")
    for image, kind in ((grey, "PNG"), (grey.convert("RGB"), "PNG"), (grey.convert("RGB"), "JPEG"), (grey.convert("LA"), "PNG")):
        assert inspected(image, kind).is_grey
    coloured = grey.convert("RGB")
    coloured.putpixel((10, 15), (200, 10, 10))
    assert not inspected(coloured).is_grey
    assert inspect_array(np.asarray(grey.convert("RGB"))).is_grey
    assert not inspect_array(np.asarray(picture(1))).is_grey


def test_the_format_is_noticed_and_not_the_ending():
    """A JPEG with several pictures in it is a JPEG."""
    kinds = [inspected(picture(1), "JPEG").kind, inspected(picture(1), "PNG").kind, inspected(picture(1), "BMP").kind]
    assert kinds == [FORMATS.index(name) + 1 for name in ("JPEG", "PNG", "BMP")]
    assert inspected(picture(1), "MPO", save_all=True, append_images=[picture(2)]).kind == kinds[0]
    assert read_image(np.asarray(picture(1)), 16, "crop")[1].kind == 0
