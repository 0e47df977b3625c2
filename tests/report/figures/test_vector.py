"""Figures of pictures and texts alone, written as SVG without matplotlib's own writer."""

import base64
import io
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from ablation.report.figures import matrices, style, vector

SVG = "{http://www.w3.org/2000/svg}"
COUNTS = np.array([[3, 1, 0], [0, 0, 0], [1, 0, 4]])
NAMES = ["cat", "dog", "b<d"]


@pytest.fixture
def written(tmp_path):
    """The root of the SVG of one matrix."""
    with style.styled():
        return ElementTree.parse(style.save(matrices.one_matrix(COUNTS, NAMES, "cb", wide=4.2), tmp_path / "a.svg")).getroot()


def test_the_picture_has_the_matrix_in_its_place(written):
    """A cell of each class in the colour of its share, blank without images, as wide as the page leaves room for."""
    (picture,) = written.findall(f"{SVG}image")
    data = base64.b64decode(picture.get("{http://www.w3.org/1999/xlink}href").partition(",")[2])
    pixels_HW3 = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    middles = vector.CELL // 2 + vector.CELL * np.arange(3)
    colours = style.mpl.colormaps[matrices.COLOURS]([[0.75, 0.25, 0], [0, 0, 0], [0.2, 0, 0.8]], bytes=True)[..., :3]
    colours[1] = 255
    assert (pixels_HW3[np.ix_(middles, middles)] == colours).all()
    side = 72 * (4.2 - style.room_for(NAMES) - 0.1)
    assert [float(picture.get(name)) for name in ("x", "y", "width", "height")] == pytest.approx(
        [72 * style.room_for(NAMES), 72 * 0.3, side, side], abs=0.01
    )


def test_every_text_is_an_outline(written):
    """Title, both axes, each class on both sides, and a number in each cell with a share; white where the cell is dark."""
    paths = written.findall(f"{SVG}path")
    assert len(paths) == 3 + 2 * len(NAMES) + 4
    assert {path.get("fill") for path in paths} == {"#000000", "#ffffff"}
    assert all(path.get("d").startswith("M") and "Z" in path.get("d") for path in paths)


def test_numbers_are_in_the_middle_of_their_cells(written):
    """The only cell of the last column with a number is the last row's."""
    (picture,) = written.findall(f"{SVG}image")
    left, top, side = (float(picture.get(name)) for name in ("x", "y", "width"))
    places = {path.get("transform") for path in written.findall(f"{SVG}path")}
    assert f"translate({left + 2.5 / 3 * side:.2f} {top + 2.5 / 3 * side:.2f})" in places


def test_a_figure_with_axes_is_matplotlibs(tmp_path):
    """Many classes have a colour bar in place of numbers."""
    with style.styled():
        figure = matrices.one_matrix(np.eye(40, dtype=int), [f"class {number}" for number in range(40)], "cb", wide=4.2)
        assert not vector.is_plain(figure)
        assert "figure_1" in style.save(figure, tmp_path / "a.svg").read_text()
