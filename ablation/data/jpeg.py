"""What a JPEG file says of its pixels, read without decoding them."""

import re

START_OF_SCAN, END_OF_IMAGE, ADOBE = 0xDA, 0xD9, 0xEE
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)  # within a scan, 0xff is followed by 0, by a restart's number, or by itself


def compressed_pixels(jpeg: bytes) -> tuple[bytes, bool]:
    """The file without comments and the segments of applications (of which the one by Adobe tells colours) and without what follows the
    image, such as a phone's video; and whether the image has an end. Without one, a part of it was never written.
    """
    kept, place = list[bytes](), 2
    while jpeg[place : place + 1] == b"\xff":
        marker, length = jpeg[place + 1], int.from_bytes(jpeg[place + 2 : place + 4])
        if marker == START_OF_SCAN:
            end = _end(jpeg, place + 2 + length)
            return b"".join([*kept, jpeg[place : end or len(jpeg)]]), end > 0
        if marker in (ADOBE, *range(0xC0, 0xE0)):
            kept.append(jpeg[place : place + 2 + length])
        place += 2 + length if marker != 0xFF else 1  # any number of these may fill the space before a marker
    return jpeg, False


def _end(jpeg: bytes, place: int) -> int:
    """Where the image ends, from a place within its first scan on; 0 if it does not. Tables between scans may hold any bytes."""
    while found := MARKER.search(jpeg, place):
        if jpeg[found.start() + 1] == END_OF_IMAGE:
            return found.end()
        place = found.end() + int.from_bytes(jpeg[found.end() : found.end() + 2])
    return 0
