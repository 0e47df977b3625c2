"""Text that fits a terminal."""

import shlex
import subprocess

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from ablation.report.documents.terminal_text import Screen, aligned, command_in, filled, short_names

LETTERS = st.sampled_from(["a", "b", "é", "深", "한", "e\u0301", "/", "-", "…", "0"])
NAMES = st.lists(LETTERS, min_size=1, max_size=60).map("".join)
PLAIN_NAMES = NAMES.filter(lambda name: "…" not in name)
ALIKE = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.sampled_from("cd")), min_size=1, max_size=8, unique=True).map(
    lambda parts: [f"{first * 20}{middle}{last * 20}" for first, middle, last in parts]
)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.lists(NAMES, min_size=1, max_size=12, unique=True), ALIKE), st.integers(6, 40))
def test_short_names_fit_and_stay_different(names, width):
    """Whatever the letters: in so many cells, no two alike, and what fits is as it was."""
    short = short_names(names, width)
    assert list(short) == names
    assert len(set(short.values())) == len(names)
    assert all(cell_len(text) <= width for text in short.values())
    assert all(short[name] == name for name in names if cell_len(name) <= width)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.lists(PLAIN_NAMES, min_size=1, max_size=12, unique=True), ALIKE), st.integers(6, 40))
def test_a_short_name_could_mean_no_other(names, width):
    """Its beginning and end are those of one name, unless it is numbered."""
    for name, text in short_names(names, width).items():
        head, mark, tail = text.partition("…")
        if text != name and mark and not tail.startswith("#"):
            assert [other for other in names if other.startswith(head) and other.endswith(tail) and len(other) >= len(head + tail)] == [
                name
            ]


def test_names_are_cut_where_they_differ():
    """In the middle first, else nearer to the end or the beginning, and numbered where only the inside differs."""
    assert short_names(["cb", "decoupled/class-balanced-focal"], 13) == {
        "cb": "cb",
        "decoupled/class-balanced-focal": "decoup…-focal",
    }
    assert list(short_names(["aaaaaaaaaa-b", "aaaaaaaaaa-c"], 8).values()) == ["aaaa…a-b", "aaaa…a-c"]
    assert list(short_names(["aaaaaaaa1cccccccc", "aaaaaaaa2cccccccc"], 9).values()) == ["aaaaaa…#1", "aaaaaa…#2"]


def test_numbers_are_aligned_at_the_decimal_point():
    """Each of a cell's numbers has its column; what has fewer numbers or none stays readable, and all are as wide."""
    assert aligned(["+0.84 [-9.78, +11.45]", "-10.56 [-25.33, +4.22]", "-1.39", "–", ""]) == [
        " +0.84 [ -9.78, +11.45]",
        "-10.56 [-25.33,  +4.22]",
        " -1.39                 ",
        "     –                 ",
        "                       ",
    ]


def test_lines_are_filled():
    """Up to the width, in cells; only what is wider than a whole line is cut."""
    assert filled(["one", "two", "three"], 8) == ["one two", "three"]
    assert filled(["深深", "深深"], 9, "> ", "  ", " · ") == ["> 深深 ·", "  深深"]
    assert filled(["abcdefgh"], 4, "  ", "  ") == ["  ab", "  cd", "  ef", "  gh"]


def test_a_command_is_one_command_for_a_shell():
    """It is broken before options, and a shell reads the lines as the words that they were."""
    words = ["printf", "%s|", "my study.yaml", "--set", "a=it's --b", *(word for seed in range(12) for word in ("--seed", str(seed)))]
    lines = command_in(shlex.join(words), 50)
    assert len(lines) > 2
    assert max(map(len, lines)) <= 50
    done = subprocess.run(
        ["sh", "-c", "\n".join(lines).replace("  printf %s\\|", "  printf '%s|' --", 1)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("|")[:-1] == words[2:]
    assert command_in("ablate run x", 50) == ["  ablate run x"]


def test_letters_that_an_encoding_lacks_are_replaced():
    """All that the text uses can be written in ASCII; an encoding that has them keeps them."""
    text = "98.05 ± 1.18 – a…b → c · d"
    assert Screen(encoding="ascii").letters(text) == "98.05 +/- 1.18 - a~b -> c | d"
    assert Screen(encoding="latin-1").letters("± …") == "± ~"
    assert Screen().letters(text) == text
