"""Figures of pictures and texts alone as an SVG.

There is one for every arm, and matplotlib's own writer takes ten times as long. Lengths are in points, from the top left corner.
"""

import base64
import io
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import BboxImage
from matplotlib.path import Path as Outline
from matplotlib.text import Text
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D
from PIL import Image

KINDS = (BboxImage, PathCollection, Text)
LETTERS = {Outline.MOVETO: "M", Outline.LINETO: "L", Outline.CURVE3: "Q", Outline.CURVE4: "C", Outline.CLOSEPOLY: "Z"}
CELL = 40  # pixels across, so that a cell has sharp edges in any program
HEAD = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def is_plain(figure: Figure) -> bool:
    """Whether the figure has only what can be written here."""
    return all(isinstance(artist, KINDS) for artist in figure.get_children() if artist is not figure.patch)


def svg_of(figure: Figure) -> str:
    """The text of the file; equal figures give equal texts."""
    wide, tall = (f"{72 * inches:g}" for inches in figure.get_size_inches())
    parts = [part for artist in figure.get_children() for part in _parts(artist, float(tall), 72 / figure.dpi)]
    head = f'{HEAD} width="{wide}pt" height="{tall}pt" viewBox="0 0 {wide} {tall}">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#ffffff"/>', *parts, "</svg>\n"])


def _parts(artist: Artist, tall: float, scale: float) -> Iterator[str]:
    """The elements of what is drawn; `scale` makes pixels points."""
    if isinstance(artist, BboxImage):
        box = artist.get_window_extent()
        corner = f'x="{scale * box.x0:.2f}" y="{tall - scale * box.y1:.2f}"'
        size = f'width="{scale * box.width:.2f}" height="{scale * box.height:.2f}" preserveAspectRatio="none"'
        yield f'<image {corner} {size} xlink:href="data:image/png;base64,{_pixels(artist)}"/>'
    elif isinstance(artist, PathCollection):
        paths, colours = artist.get_paths(), np.asarray(artist.get_facecolor())
        places_N2 = scale * artist.get_offset_transform().transform(np.asarray(artist.get_offsets()))
        for number, (x, y) in enumerate(places_N2):
            yield _filled(paths[number % len(paths)], x, tall - y, colours[number % len(colours)])
    elif isinstance(artist, Text):
        x, y = scale * artist.get_transform().transform(artist.get_unitless_position())
        path = _aligned(artist.get_text(), float(artist.get_fontsize()), artist.get_verticalalignment(), artist.get_rotation())
        yield _filled(path, x, tall - y, artist.get_color())


def _filled(path: Outline, x: float, y: float, colour: Any) -> str:
    return f'<path transform="translate({x:.2f} {y:.2f})" fill="{to_hex(colour)}" d="{_data(path)}"/>'


@lru_cache(maxsize=1024)
def _data(path: Outline) -> str:
    """The outline as SVG writes it, whose y goes down."""
    signs = np.array([1, -1])
    segments = ((points.reshape(-1, 2) * signs, code) for points, code in path.iter_segments(simplify=False))
    return "".join(
        LETTERS[code] + ("" if code == Outline.CLOSEPOLY else " ".join(f"{x:.2f} {y:.2f}" for x, y in points)) for points, code in segments
    )


@lru_cache(maxsize=64)
def _aligned(text: str, size: float, height: str, degrees: float) -> Outline:
    """The text's outline, with the origin at the middle of its length, and where its vertical alignment has it."""
    if not text.strip():
        return Outline([(0, 0)])
    path = TextPath((0, 0), text, size=size)
    across = path.vertices[path.codes != Outline.CLOSEPOLY, 0]
    down = {"baseline": 0.0, "center": 0.36 * size, "top": 0.76 * size}[height]
    return path.transformed(Affine2D().translate(-(across.min() + across.max()) / 2, -down).rotate_deg(degrees))


def _pixels(picture: BboxImage) -> str:
    """The picture as a PNG, on white."""
    pixels_HW4 = picture.to_rgba(np.ma.asarray(picture.get_array()), bytes=True)
    small = Image.fromarray(pixels_HW4)
    image = Image.alpha_composite(Image.new("RGBA", small.size, "white"), small).convert("RGB").quantize(256)
    data = io.BytesIO()
    image.resize((CELL * image.width, CELL * image.height), Image.Resampling.NEAREST).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()
