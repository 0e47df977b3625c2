"""One image to RGB pixels of the size asked for, and what was noticed about it: `Inspection`."""

# H height, W width, C channels. Nothing here imports torch: every decoding process would pay for it.

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeAlias, cast

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from ablation.data.jpeg import compressed_pixels

# Only plain raster formats: Pillow's others run external programs (EPS) or are not photographs (PDF, MPEG).
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
WITH_FRAMES = ("GIF", "PNG", "TIFF", "WEBP", "AVIF")  # the formats whose further frames are images of their own, and no preview
DIGEST_BYTES = 16

Encoded: TypeAlias = str | Path | BytesIO | np.ndarray
Range: TypeAlias = tuple[int, int]

FULL_RANGE: Range = (0, 65535)  # of grey values in 16 bits
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # a tag of TIFF, and its value for negatives
SAMPLE_FORMAT, SIGNED = 339, 2  # a tag of TIFF, and its value for numbers below zero
GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")  # Pillow's names for images of one channel
NOT_THERE = 128  # what a decoder makes of the pixels of a JPEG whose data end before them, in every channel
LEAST_NOT_THERE = 8  # an image is told whose lower part is such for more than one part in so many of its height

INSPECTION = np.dtype(
    [
        ("digest", f"V{DIGEST_BYTES}"),  # of all pixels, before they are resized: in RGB, in grey of 16 bits, or as a JPEG has them
        ("decoded", f"V{DIGEST_BYTES}"),  # of the pixels that were decoded: of a large JPEG, at a fraction of its size
        ("content", f"V{DIGEST_BYTES}"),  # of the file, or of pixels that come without one: whatever the size asked for
        ("width", "<u4"),
        ("height", "<u4"),
        ("bits", "u1"),  # of a grey value, or of a channel: 8 or 16
        ("low", "<u2"),  # the smallest grey value as it is stored, of colour the smallest in any channel of 8 bits
        ("high", "<u2"),
        ("dark", "<u2"),  # the values that 1 % of a 16-bit image lie below and 1 % above: so without markers
        ("bright", "<u2"),
        ("is_reduced", "?"),  # whether it has more than one channel of 16 bits, of which only the upper 8 can be read
        ("has_frames", "?"),  # whether it has more than the first frame
        ("has_alpha", "?"),  # whether any of it is transparent
        ("is_blank", "?"),  # whether it has one colour throughout
        ("is_cut", "?"),  # whether it is a JPEG without an end
        ("is_hollow", "?"),  # whether it is a JPEG whose lower part looks as if it were not there
        ("is_grey", "?"),  # whether its channels are equal
        ("kind", "u1"),  # the number of its format, counted from 1; 0 for pixels that come without a file
    ]
)
"""What is kept of each image."""


class Inspection(NamedTuple):
    """What was noticed about one image, in the order of `INSPECTION`."""

    digest: bytes
    decoded: bytes
    content: bytes
    width: int
    height: int
    bits: int
    low: int
    high: int
    dark: int
    bright: int
    is_reduced: bool = False
    has_frames: bool = False
    has_alpha: bool = False
    is_blank: bool = False
    is_cut: bool = False
    is_hollow: bool = False
    is_grey: bool = False
    kind: int = 0


class UnusableError(Exception):
    """An image that cannot be used, or a file of images that cannot be opened; the message says why."""


def crop(image: Image.Image, size: int) -> Image.Image:
    """The largest centred square, resized: the shorter side is kept whole, the longer one is cropped."""
    return ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)


def pad(image: Image.Image, size: int) -> Image.Image:
    """The whole image with its longer side resized to `size`, centred on black."""
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    square = Image.new("RGB", (size, size))
    square.paste(image.resize((width, height), Image.Resampling.BICUBIC), ((size - width) // 2, (size - height) // 2))
    return square


def squash(image: Image.Image, size: int) -> Image.Image:
    """The whole image resized to a square, without keeping its proportions."""
    return image.resize((size, size), Image.Resampling.BICUBIC)


def exact(image: Image.Image, size: int) -> Image.Image:
    """The unchanged image; raises UnusableError if it has another size."""
    if image.size != (size, size):
        raise UnusableError(f"is {image.width} x {image.height} pixels; expected {size} x {size}")
    return image


FITS: Mapping[str, Callable[[Image.Image, int], Image.Image]] = MappingProxyType(
    {"crop": crop, "pad": pad, "squash": squash, "exact": exact}
)


def rgb(image: Image.Image, value_range: Range = FULL_RANGE) -> Image.Image:
    """The image in 8-bit RGB: 16 bits scaled down, transparency over white, grey repeated in all channels.

    The grey values of `value_range` in 16 bits become 0 to 255, those outside it 0 or 255. Pillow's own conversion clips 16-bit grey to
    white and shows the arbitrary colours of transparent pixels.
    """
    if image.mode == "F":
        raise UnusableError("has floating-point pixels; expected 8 or 16 bits per channel")
    if image.mode.startswith("I"):
        return _rgb_of_levels(_levels(image), image.info.get("transparency"), value_range)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _levels(image: Image.Image) -> np.ndarray:
    """The grey values of an image of 16 bits."""
    levels_HW = np.asarray(image).astype(np.int64)
    if levels_HW.min() < 0 or levels_HW.max() > FULL_RANGE[1]:
        raise UnusableError("has grey values outside 0 ... 65535; expected 8 or 16 bits per channel")
    return levels_HW


def _has_alpha(image: Image.Image) -> bool:
    """Whether any pixel is transparent."""
    if not image.has_transparency_data or image.mode.startswith("I"):
        return False
    lowest, _ = cast(tuple[int, int], image.convert("RGBA").getchannel("A").getextrema())
    return lowest < 255


def _rgb_of_levels(levels_HW: np.ndarray, transparent: object, value_range: Range) -> Image.Image:
    """Grey values as 8-bit RGB; those that the file calls transparent are white."""
    low, high = value_range
    scaled_HW = ((np.clip(levels_HW, low, high) - low) * 255 + (high - low) // 2) // (high - low)
    if isinstance(transparent, int):
        scaled_HW[levels_HW == transparent] = 255
    return Image.fromarray(scaled_HW.astype(np.uint8)).convert("RGB")


def pixels(encoded: Encoded, size: int, fit: str, value_range: Range = FULL_RANGE) -> np.ndarray:
    """The first frame of an image file, upright by its EXIF orientation, or an array of pixels, as size x size x 3 uint8."""
    return read_image(encoded, size, fit, value_range)[0]


def opened_pixels(image: Image.Image, size: int, fit: str, value_range: Range = FULL_RANGE) -> np.ndarray:
    """The same of an image that is opened."""
    return _upright(image, size, fit, value_range)[0]


def read_image(encoded: Encoded, size: int, fit: str, value_range: Range = FULL_RANGE) -> tuple[np.ndarray, Inspection]:
    """The same pixels, and what was noticed about the image."""
    if isinstance(encoded, np.ndarray):
        return _fitted(Image.fromarray(encoded), size, fit, value_range)
    with _opened(encoded) as image:
        width, height, has_frames = image.width, image.height, image.format in WITH_FRAMES and getattr(image, "is_animated", False)
        is_reduced, is_jpeg = _is_reduced(image), isinstance(image, JpegImageFile)
        kind = format_number("JPEG" if is_jpeg else str(image.format))
        # JPEG only: decode at a fraction of the size, but at no less than twice the size needed.
        image.draft(None, (2 * size, 2 * size))
        orientation = _orientation(image)
        pixels_HWC, inspection = _upright(image, size, fit, value_range)
        is_hollow = is_jpeg and _is_hollow(image)
    noticed = inspection._replace(width=width, height=height, is_reduced=is_reduced, has_frames=has_frames, content=_file_digest(encoded))
    noticed = noticed._replace(kind=kind, is_hollow=is_hollow)
    if is_jpeg:  # two pictures may be one at the fraction of their size that was decoded
        stored, has_end = compressed_pixels(_file_bytes(encoded))
        noticed = noticed._replace(digest=_digest(width, height, stored, str(orientation)), is_cut=not has_end)
    return pixels_HWC, noticed


@contextlib.contextmanager
def _opened(encoded: str | Path | BytesIO) -> Iterator[ImageFile.ImageFile]:
    """The image of a file, opened here: given a path, Pillow maps an uncompressed TIFF into memory, and scrambles one that is turned."""
    with contextlib.ExitStack() as stack:
        file = encoded if isinstance(encoded, BytesIO) else stack.enter_context(open(encoded, "rb"))
        yield stack.enter_context(Image.open(file, formats=FORMATS))


def whole_digest(encoded: str | Path | BytesIO) -> bytes:
    """The digest of all pixels of an image file of 8 bits, upright and in RGB, whatever size is asked for elsewhere."""
    with _opened(encoded) as image:
        upright = rgb(_turned(image))
    return _digest(*upright.size, upright.tobytes())


def format_number(name: str) -> int:
    """The number of a format in `Inspection.kind`."""
    return FORMATS.index(name) + 1 if name in FORMATS else 0


def _orientation(image: Image.Image) -> int:
    """How an image is to be turned, from 1 (not at all) to 8; what is none of these turns nothing."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except SyntaxError:  # damaged, in a PNG or WebP
        return 1
    return orientation if orientation in range(2, 9) else 1


def _turned(image: Image.Image) -> Image.Image:
    """The image as its EXIF data say that it is to be turned."""
    return ImageOps.exif_transpose(image) if _orientation(image) != 1 else image


def _is_hollow(image: Image.Image) -> bool:
    """Whether the rows at the end of a decoded JPEG, and not those at its beginning, are as if there were no data for them."""
    height, corner = image.height, image.getpixel((0, image.height - 1))
    if corner not in (NOT_THERE, (NOT_THERE,) * 3):
        return False
    is_such_H = (np.asarray(image) == NOT_THERE).reshape(height, -1).all(axis=1)
    num_rows = height if is_such_H.all() else int(is_such_H[::-1].argmin())
    return num_rows * LEAST_NOT_THERE > height and not is_such_H[0]


def _upright(image: Image.Image, size: int, fit: str, value_range: Range) -> tuple[np.ndarray, Inspection]:
    """An image as a viewer shows it, fitted, and what was noticed about its pixels."""
    if image.mode == "L" and SIGNED in _tag(image, SAMPLE_FORMAT):
        raise UnusableError("has signed values of 8 bits; expected unsigned ones")
    is_inverted, upright = _is_inverted(image), _turned(image)
    return _fitted(_inverted(upright) if is_inverted else upright, size, fit, value_range)


def _tag(image: Image.Image, number: int) -> tuple[int, ...]:
    """The values of a TIFF's tag; none of other images."""
    found = getattr(image, "tag_v2", {}).get(number, ()) if image.format == "TIFF" else ()
    return found if isinstance(found, tuple) else (found,)


def _is_inverted(image: Image.Image) -> bool:
    """Whether 0 is white in a grey image of 16 bits, which Pillow takes for black; it reads those of 8 bits as they are meant."""
    return image.mode.startswith("I") and WHITE_IS_ZERO in _tag(image, PHOTOMETRIC)


def _inverted(image: Image.Image) -> Image.Image:
    return Image.fromarray((FULL_RANGE[1] - _levels(image)).astype(np.uint16))


def _file_bytes(encoded: str | Path | BytesIO) -> bytes:
    return encoded.getvalue() if isinstance(encoded, BytesIO) else Path(encoded).read_bytes()


def _file_digest(encoded: str | Path | BytesIO) -> bytes:
    new = partial(hashlib.blake2b, digest_size=DIGEST_BYTES)
    if isinstance(encoded, BytesIO):
        return new(encoded.getbuffer()).digest()
    with Path(encoded).open("rb") as file:
        return hashlib.file_digest(file, new).digest()


def _is_reduced(image: ImageFile.ImageFile) -> bool:
    """Whether Pillow reads only the upper 8 of 16 bits, as it does where there is more than one channel."""
    raw_modes = [str(part) for tile in image.tile for part in np.atleast_1d(np.array(tile[3], dtype=object))]
    return not image.mode.startswith("I") and any(";16" in mode for mode in raw_modes)


def inspect_array(image_HWC: np.ndarray) -> Inspection:
    """What is to be noticed about pixels in 8-bit RGB that need no decoding."""
    height, width, _ = image_HWC.shape
    digest = _digest(width, height, image_HWC.tobytes())
    low, high = int(image_HWC.min()), int(image_HWC.max())
    is_blank = bool((image_HWC == image_HWC[0, 0]).all())
    is_grey = _is_grey(image_HWC)
    return Inspection(digest, digest, digest, width, height, 8, low, high, low, high, is_blank=is_blank, is_grey=is_grey)


def _is_grey(image_HWC: np.ndarray) -> bool:
    """Whether all channels are equal; three pixels, which mostly tell, are looked at before all others."""
    height, width, _ = image_HWC.shape
    for y, x in ((height // 2, width // 2), (0, 0), (height // 3, width // 4)):
        red, green, blue = image_HWC[y, x].tolist()
        if not red == green == blue:
            return False
    return all(np.array_equal(image_HWC[..., 0], image_HWC[..., c]) for c in (1, 2))


def _digest(width: int, height: int, pixels: bytes, more: str = "") -> bytes:
    return hashlib.blake2b(f"{width} {height} {more}".encode() + pixels, digest_size=DIGEST_BYTES).digest()


def _fitted(image: Image.Image, size: int, fit: str, value_range: Range) -> tuple[np.ndarray, Inspection]:
    image_rgb = rgb(image, value_range)
    stored = image_rgb.tobytes()
    if image.mode.startswith("I"):
        levels_HW = _levels(image)
        bits, stored = 16, levels_HW.astype("<u2").tobytes()
        low, dark, bright, high = np.percentile(levels_HW, [0, 1, 99, 100], method="nearest").astype(int).tolist()
        is_blank = low == high
    else:
        extrema = cast(tuple[tuple[int, int], ...], image_rgb.getextrema())  # of each channel
        bits, low, high = 8, min(lowest for lowest, _ in extrema), max(highest for _, highest in extrema)
        dark, bright, is_blank = low, high, all(lowest == highest for lowest, highest in extrema)
    digest = _digest(*image_rgb.size, stored)
    pixels_HWC = np.asarray(FITS[fit](image_rgb, size))
    noticed = Inspection(digest, digest, digest, *image.size, bits, low, high, dark, bright, has_alpha=_has_alpha(image), is_blank=is_blank)
    return pixels_HWC, noticed._replace(is_grey=image.mode in GREY_MODES or _is_grey(pixels_HWC))
