"""Images that a CSV table lists: which column is which, and what its cells mean."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import compress
from pathlib import Path
from types import MappingProxyType

from ablation.data.csvfile import Table, read_table
from ablation.data.decoding import ENDINGS
from ablation.data.files import Entry, Found, file_name, first_places
from ablation.data.naming import (
    NUMBER,
    check_alike,
    check_present,
    clean,
    is_left_by_a_system,
    passed_over_remark,
    quoted,
    split_of,
    split_word,
)
from ablation.data.shared_names import are_shared_by_few
from ablation.data.source import MAX_LISTED, TRAIN, join_words
from ablation.errors import DataError, nearest

NONE = "none"
MOST_ODD = 3  # values that a message names
MOST_SPLITS = 4  # values of a column that may be a split although only one of them is called so, as of train and holdout
BETWEEN_LABELS = re.compile(r"\s*[|;,]\s*")  # as tables write several labels of one image in a cell
TABLE_SPLITS = ("train", "val", "validation", "test")
# What people call these columns, without blanks and underscores.
WORDS: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        "image": re.compile(r"(images?|img|picture|photo|file|f)?(name|path|file|id)s?|images|img|picture|photo"),
        "label": re.compile(r"labels?(id|name)?|class(es)?(id|name)?|category|targets?|y|species|diagnosis|dx|type|breed|tag"),
        "split": re.compile(r"(data|dataset)?splits?(name|set|type)?|train(val)?test(split)?|subset|partition"),
        "group": re.compile(
            r"(groups?|grp|patients?|pat|subjects?|subj|participants?|case|person|animal|individual|lesion|study|specimen|mrn|pid|wsi)"
            r"(ids?|name|number|no|nr|num|code|index|hash|key|identifier)?"
        ),
    }
)
# What may be meant as a split or as a group, and may well be something else.
MAYBE_SPLIT = re.compile(r"set|(cv|k)?folds?|phase|usage|part|purpose")
MAYBE_GROUP = re.compile(
    r"(slide|scan|series|video|clip|track|scene|session|visit|exam|accession|recording|user|site|hospital|deployment|camera|location|plot|"
    r"plant|tree|wafer|lot|barcode|speaker|burst|seq|sequence|identity|sid)(ids?|name|number|no|nr|num|code|index)?"
)
FLAG = re.compile(r"[0-2](\.0)?|true|false|yes|no|[tfyn]", re.IGNORECASE)
IDENTITY = re.compile(r"(?i:[\W_](id|uid|uuid))$|[a-z](ID|Id|UID)$|(?i:^(donor|mouse|owner)$)")


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns; `none` is a column that is not used."""

    image: str
    label: str
    split: str
    group: str


def find_table(file: Path, root: Path, columns: Columns, defaults: Columns) -> Found:
    """The images that a CSV file lists, in its order; optional columns are used if the file has them."""
    table = read_table(file, (columns.image, columns.label))
    image, label = (_required(table, setting, columns, defaults) for setting in ("image", "label"))
    split, group = (_optional(table, setting, columns, defaults) for setting in ("split", "group"))
    used = [table.header[i] for i in (image, label, split, group) if i is not None]
    remarks = [*_check_unused(table, used, columns, split, group)]
    if split is None and columns.split != NONE:
        remarks += _split_paths(row[image] for row in table.rows)
    return _entries(table, root, (image, label, split, group), remarks)


def _entries(table: Table, root: Path, places: tuple[int, int, int | None, int | None], remarks: Sequence[str]) -> Found:
    image, label, split, group = places
    where = repr(str(table.file))
    names = [file_name(root, name) for name in _full(table, image)]
    labels = [clean(text) for text in _full(table, label)]
    lines = [f"line {line}" for line in table.lines]
    check_present(where, table.header[label].strip(), labels, lines)
    check_alike(where, table.header[label].strip(), first_places(labels, lines))
    groups = names if group is None else [clean(text) for text in _full(table, group)]
    if group is not None:
        check_present(where, table.header[group].strip(), groups, lines)
    splits = [TRAIN] * len(names) if split is None else _splits(table, split)
    is_kept = [not is_left_by_a_system(name) for name in names]
    _check_unique_images(table, names)
    rows = compress(zip(names, labels, splits, groups, strict=True), is_kept)
    entries = [Entry(name, root / name, text, part, own) for name, text, part, own in rows]
    passed_over = passed_over_remark(name for name, kept in zip(names, is_kept, strict=True) if not kept)
    told = (*passed_over, *remarks, *_several_labels({entry.label for entry in entries}))
    return Found(where, entries, _column(table, split), _column(table, group), told)


def _several_labels(labels: Set[str]) -> Iterator[str]:
    """A sentence on labels that are made of others, such as `cat|dog` beside `cat` and `dog`; or nothing."""
    several = [label for label in sorted(labels) if len(parts := BETWEEN_LABELS.split(label)) > 1 and labels >= set(parts)]
    if several:
        noun, it = ("label", "it") if len(several) == 1 else ("labels", "them")
        verb = "is a class" if len(several) == 1 else "are classes"
        yield f"the {noun} {quoted(several)} {verb} beside the classes named in {it}: an image has one label here, and counts for one class"


def _split_paths(names: Iterable[str]) -> Iterator[str]:
    """A sentence on paths that begin with several splits' names, where no column tells the splits apart; or nothing."""
    folders = sorted({name.partition("/")[0].strip() for name in names if "/" in name})
    known = [folder for folder in folders if split_of(folder) is not None]
    if len(known) > 1 and len(folders) < MAX_LISTED:
        yield f"no column tells the splits apart, though paths begin with {quoted(known)}"


def _column(table: Table, place: int | None) -> str:
    return "" if place is None else f"column {table.header[place].strip()!r}"


# --- columns


def column_key(name: str) -> str:
    """What is equal for all spellings of a column's name: case and blanks around it do not matter."""
    return clean(unicodedata.normalize("NFKC", name)).casefold()


def _word(name: str) -> str:
    return re.sub(r"[\W_]", "", column_key(name))


def _places(table: Table, name: str, *, is_named: bool) -> list[int]:
    """Where the columns of this name are; with `is_named` its very spelling goes first."""
    exact = [i for i, column in enumerate(table.header) if column == name]
    if is_named and len(exact) == 1:
        return exact
    return [i for i, column in enumerate(table.header) if column_key(column) == column_key(name)]


def _place(table: Table, setting: str, columns: Columns, defaults: Columns) -> int | None:
    name = str(getattr(columns, setting))
    places = _places(table, name, is_named=name != getattr(defaults, setting))
    if len(places) > 1:
        found = quoted(table.header[i] for i in places)
        raise DataError(
            f"{str(table.file)!r} has {len(places)} columns called {name!r}: {found}; expected one: rename the others, or write {setting}: "
            f"with the one that is meant, where they differ in case"
        )
    return places[0] if places else None


def _required(table: Table, setting: str, columns: Columns, defaults: Columns) -> int:
    place = _place(table, setting, columns, defaults)
    if place is None:
        raise DataError(_no_column(table, setting, str(getattr(columns, setting))))
    return place


def _optional(table: Table, setting: str, columns: Columns, defaults: Columns) -> int | None:
    name = getattr(columns, setting)
    if name == NONE:
        return None
    place = _place(table, setting, columns, defaults)
    if place is None and name != getattr(defaults, setting):  # the study's file names this column, so it must be there
        raise DataError(_no_column(table, setting, name))
    return place


def _no_column(table: Table, setting: str, name: str) -> str:
    problem = f"{str(table.file)!r} has no column {name!r}; found {', '.join(map(repr, table.header))}."
    if any(ENDINGS.fullmatch(Path(cell.strip()).suffix) for cell in table.header):
        return f"{problem} The first line looks like an image; expected the names of the columns there"
    near = nearest(name, table.header)
    like = near.split("'")[1] if "'" in near else next((column for column in table.header if WORDS[setting].fullmatch(_word(column))), "")
    near = near or (f" Did you mean {like!r}?" if like else "")
    return f"{problem}{near}{f' Then write {setting}: {like.strip()} under data' if like else ''}"


def _check_unused(table: Table, used: Sequence[str], columns: Columns, split: int | None, group: int | None) -> Iterator[str]:
    """Raise DataError for a column that must be meant as the split or the group; a remark on one that may be."""
    for place, column in enumerate(table.header):
        if column in used or not column.strip():
            continue
        if split is None and columns.split != NONE:
            yield from _unused_split(table, place)
        if group is None and columns.group != NONE:
            yield from _unused_group(table, place, split)


def _unused_split(table: Table, place: int) -> Iterator[str]:
    column = table.header[place]
    if _is_flag(column, (row[place] for row in table.rows)) and _num_values(table, place) > 1:
        raise DataError(
            f"{str(table.file)!r} has no column 'split', but {column!r} looks as if it told the splits apart by numbers; expected a column "
            f"of the words train, val and test: write one, or split: {NONE} under data if {column.strip()} means something else"
        )
    splits = [split_of(row[place]) for row in table.rows]
    if _is_like(column, "split") or all(split is not None for split in splits):
        if _num_values(table, place) > 1:
            raise DataError(_unsaid(table, column, "split", "tells training, validation and test images apart"))
    elif 2 * splits.count(None) < len(splits) and (len({*splits} - {None}) > 1 or _num_values(table, place) <= MOST_SPLITS):
        others = sorted({row[place].strip() for row, split in zip(table.rows, splits, strict=True) if split is None})
        told = ", ".join(repr(other) for other in others[:MOST_ODD]) + (" and others" if len(others) > MOST_ODD else "")
        raise DataError(
            f"{str(table.file)!r} has no column 'split', but {column!r} holds the names of splits, and {told}; expected to be told: write "
            f"split: {column.strip()} under data if it tells the splits apart, and train, val or test in each row, or split: {NONE} if not"
        )
    elif MAYBE_SPLIT.fullmatch(_word(column)):
        yield f"no column 'split' tells the splits apart; {column!r} may: write split: {column.strip()} if so, or split: none"


def _unused_group(table: Table, place: int, split: int | None) -> Iterator[str]:
    """As above, for columns that keep some images together and divide others."""
    column = table.header[place]
    is_meant, is_maybe = _is_like(column, "group"), MAYBE_GROUP.fullmatch(_word(column)) or _is_identity(column)
    if (is_meant or is_maybe) and 1 < _num_values(table, place) < len(table.rows):
        if is_meant:
            raise DataError(_unsaid(table, column, "group", "keeps the images of one patient, place or scene in one split"))
        yield f"no column 'group' names a group; {column!r} may: write group: {column.strip()} if so, or group: none"
    elif split is None and not is_meant and not is_maybe and _is_shared_by_few(row[place] for row in table.rows):
        words = f"nearly every value in the column {column!r} is that of a few images, which a drawn split divides"
        yield f"{words}: if it names what they are of, such as a patient, write group: {column.strip()}, else group: none"


def _is_shared_by_few(values: Iterable[str]) -> bool:
    """Whether a column has many values, no numbers, of which nearly each is that of several rows and none of many."""
    known = [clean(value) for value in values]
    return not any(NUMBER.fullmatch(value) or not value for value in set(known)) and are_shared_by_few(known)


def _num_values(table: Table, place: int) -> int:
    return len({clean(row[place]) for row in table.rows})


def _is_flag(column: str, values: Iterable[str]) -> bool:
    """Whether a column is called like a split, as is_test or evaluation_partition, and has flags such as 0 and 1."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", column)
    is_split = any(split_of(word) is not None or word.casefold() == "partition" for word in words)
    return is_split and all(FLAG.fullmatch(value.strip()) for value in values)


def _is_identity(column: str) -> bool:
    """Whether a column numbers things that are neither images nor classes, such as mouse_id or StudyInstanceUID."""
    is_own = any(WORDS[name].fullmatch(_word(column)) for name in ("image", "label"))
    return not is_own and IDENTITY.search(column.strip()) is not None


def _is_like(column: str, name: str) -> bool:
    """Whether a column is called like `name`: by a slip, with a word before or after it, or by another word for it."""
    parts = re.split(r"[\W_]+", column_key(column))
    is_near = bool(get_close_matches(_word(column), [name], 1, cutoff=0.8))
    return is_near or name in parts or WORDS[name].fullmatch(_word(column)) is not None


def _unsaid(table: Table, column: str, setting: str, purpose: str) -> str:
    return (
        f"{str(table.file)!r} has no column {setting!r}, which {purpose}, but {column!r}; expected to be told: "
        f"write {setting}: {column.strip()} under data if that is meant, or {setting}: none if not"
    )


# --- cells


def _full(table: Table, place: int) -> list[str]:
    """The cells of a column; raises DataError if one is empty."""
    values = [row[place] for row in table.rows]
    empty = [str(line) for line, value in zip(table.lines, values, strict=True) if not value.strip()]
    if empty:
        name = table.header[place].strip()
        raise DataError(f"{str(table.file)!r} has no {name} in line {join_words(empty, len(empty))}; expected one for every image")
    return values


def _splits(table: Table, place: int) -> list[int]:
    """The split of each row. Two words for one split, such as dev and val, may be two data sets."""
    known: dict[str, int] = {}
    words: dict[int, dict[str, str]] = defaultdict(dict)
    for line, value in zip(table.lines, _full(table, place), strict=True):
        meaning = split_word(value)
        if meaning is None:
            raise DataError(
                f"{str(table.file)!r}, line {line}: found the split {value!r}; expected one of {', '.join(TABLE_SPLITS)}."
                f"{nearest(value.casefold(), TABLE_SPLITS)}"
            )
        known[value] = meaning[1]
        words[meaning[1]].setdefault(meaning[0], value)
    for same in words.values():
        if len(same) > 1:
            raise DataError(f"{str(table.file)!r} has {quoted(same.values())}, names of one split; expected one name for each split")
    return [known[row[place]] for row in table.rows]


def _check_unique_images(table: Table, names: Sequence[str]) -> None:
    lines_of_image = defaultdict(list)
    for line, name in zip(table.lines, names, strict=True):
        lines_of_image[os.path.normpath(name)].append(str(line))
    for name, lines in lines_of_image.items():
        if len(lines) > 1:
            shown = join_words(lines, len(lines))
            raise DataError(f"{str(table.file)!r} names the image {name!r} in lines {shown}; expected every image once")
