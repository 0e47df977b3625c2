"""Images in class folders: root/SPLIT/CLASS/..., or root/CLASS/...; what has another form is refused."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import cast

from ablation.data.decoding import ENDINGS
from ablation.data.files import Entry, Found, first_places, group_name
from ablation.data.naming import (
    PLAIN_SPLITS,
    check_alike,
    clean,
    is_passed_over,
    is_unseen,
    passed_over_remark,
    quoted,
    split_of,
)
from ablation.data.source import SPLIT_NAMES, TRAIN
from ablation.errors import DataError, nearest
from ablation.formatting import counted

EXPECTED = "expected train/CLASS/ and test/CLASS/, or CLASS/ folders, with images"
ARCHIVE = re.compile(r"(.+?)\.(zip|tar|tgz|tar\.\w+|7z|rar)", re.IGNORECASE)
UNREAD = re.compile(r"\.(hei[cf]|jxl|tga|dcm|dicom|dng|cr[23]|nef|arw|orf|rw2|psd|exr|hdr|nii)$", re.IGNORECASE)  # images that are not read
OF_CLASS, OF_SPLIT = "/([^/]+)/", "/[^/]+/([^/]+)/"  # patterns of the folder within a class folder, which may be in a split folder
MASK = re.compile(r"(.+?)[ _.-]+(?:masks?|seg|segmentation|gt|ground_?truth|annotat(?:ion|ed)|labels?)(?:[ _.-]?\d+)?")
OTHER_FILES = {"csv": "csv, file", "tsv": "csv, file", "txt": "lists, train_list", "npz": "npz, file"}


def find_tree(root: Path, group: str) -> Found:
    """The images in root/SPLIT/CLASS/..., or in root/CLASS/..., which are then all training images."""
    _check_is_folder(root)
    split_folders = _split_folders(root)
    if split_folders:
        _check_whole(root, split_folders)
    for folder in split_folders.values() or [root]:
        _check_level(root, folder, group)
    parts = [(split, split_folders[split]) for split in sorted(split_folders)] or [(TRAIN, root)]
    for _, folder in parts:
        _check_class_names(root, _folders(folder))
    names = [(split, label, name) for split, folder in parts for label, name in _labelled(root, folder)]
    entries = [_entry(root, name, label, split, group) for split, label, name in names if _is_read(name)]
    check_alike(repr(str(root)), "class", _first_folders(root, [folder for _, folder in parts]))
    grouped_by = "" if group == "none" else f"the pattern {group!r}"
    remarks = tuple(_remarks(root, parts, [name for _, _, name in names], group))
    return Found(repr(str(root)), entries, _origin(parts, root), grouped_by, remarks)


def split_folder_names(root: Path) -> dict[str, list[str]]:
    """The folders of root that are called like splits, each with the names of the folders in it."""
    folders = _folders(root) if root.is_dir() else []
    return {folder.name: [one.name for one in _folders(folder)] for folder in folders if split_of(folder.name) is not None}


def _below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _entry(root: Path, name: str, label: str, split: int, group: str) -> Entry:
    return Entry(name, root / name, label, split, group_name(group, name))


# --- what a folder holds


def _children(folder: str | Path) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted, each known to be a file or a folder without being asked: on a network that would take minutes."""
    with os.scandir(folder) as children:
        return sorted(children, key=attrgetter("name"))


def _is_folder(child: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; a link to itself is none."""
    return child.is_dir(follow_symlinks=False) or (child.is_symlink() and os.path.isdir(child.path))


def _folders(folder: Path) -> list[Path]:
    return [folder / child.name for child in _children(folder) if not is_passed_over(child.name) and _is_folder(child)]


def _loose_images(folder: Path) -> list[str]:
    return [child.name for child in _children(folder) if _is_read(child.name)]


def _is_image(name: str) -> bool:
    return ENDINGS.fullmatch(os.path.splitext(name)[1]) is not None


def _is_read(name: str) -> bool:
    """Whether a file below root becomes an image of the source."""
    return _is_image(name) and not is_passed_over(name)


def _labelled(root: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """The class and the name below root of each file in the class folders."""
    for class_folder in _folders(folder):
        below = _below(root, class_folder)
        names = list(_files(class_folder, below, frozenset({_file_identity(root), _file_identity(folder)})))
        if not any(map(_is_read, names)):
            raise DataError(f"class folder {below!r} in {str(root)!r} has no images")
        for name in names:
            yield clean(class_folder.name), name


def _file_identity(folder: str | Path) -> tuple[int, int]:
    state = os.stat(folder)
    return state.st_dev, state.st_ino


def _files(folder: str | Path, name: str, ancestors: frozenset[tuple[int, int]]) -> Iterator[str]:
    """The files in a folder and below, sorted, and folders to pass over, which end in a stroke; links to one above are not followed."""
    identity = _file_identity(folder)
    if identity in ancestors:
        return
    for child in _children(folder):
        below = f"{name}/{child.name}"
        if _is_folder(child):
            yield from [f"{below}/"] if is_passed_over(child.name) else _files(child.path, below, ancestors | {identity})
        elif child.is_symlink() or child.is_file():  # a broken link is reported as unreadable
            yield below


# --- the form of the root


def _check_is_folder(root: Path) -> None:
    if root.is_file():
        form = OTHER_FILES.get(root.suffix.lower().removeprefix("."))
        way = f"; such a file is read by data: {{name: {form}: {root.name}}}" if form else ""
        archive = "; unpack it, and write the folder with its content" if ARCHIVE.fullmatch(root.name) else ""
        raise DataError(f"{str(root)!r} is a file; expected a folder with train/CLASS/ and test/CLASS/, or CLASS/ folders{way}{archive}")
    if not root.is_dir():
        raise DataError(f"found no folder {str(root)!r}; expected one with train/CLASS/ and test/CLASS/, or with CLASS/ folders")


def _split_folders(root: Path) -> dict[int, Path]:
    """The folder of each split; empty if the root has class folders."""
    folders = _folders(root)
    named = [folder for folder in folders if split_of(folder.name) is not None]
    others = [folder for folder in folders if split_of(folder.name) is None]
    if not named or _is_class_called_train(named, others):
        _check_no_other_splits(root, folders)
        return {}
    by_split: dict[int, Path] = {}
    for folder in named:
        split = cast(int, split_of(folder.name))
        first = by_split.setdefault(split, folder)
        if first is not folder:
            raise DataError(
                f"{str(root)!r} has {first.name!r} and {folder.name!r}, which both are names of the {SPLIT_NAMES[split]} split; "
                f"expected one folder for each split: rename or merge them"
            )
    _check_no_strangers(root, by_split, others)
    return by_split


def _is_class_called_train(named: Sequence[Path], others: Sequence[Path]) -> bool:
    """Whether `train` is a vehicle: the only such name among folders that all hold images themselves, and no folders."""
    is_alone = [folder.name.casefold() for folder in named] == ["train"] and bool(others)
    return is_alone and all(_loose_images(folder) and not _folders(folder) for folder in (*named, *others))


def _check_no_other_splits(root: Path, folders: Sequence[Path]) -> None:
    """Raise DataError for folders such as seg_train and seg_test, which are no splits to us and no classes to anyone."""
    by_rest: dict[tuple[str, ...], dict[int, str]] = defaultdict(dict)
    for folder in folders:
        words = [word for word in re.split(r"[\W_\d]+", folder.name) if word]
        for word in words:
            split = split_of(word)
            if split is not None:
                by_rest[tuple(other for other in words if other != word)][split] = folder.name
    for names in by_rest.values():
        if TRAIN in names and len(names) > 1:
            raise DataError(
                f"{str(root)!r} has the folders {quoted(sorted(names.values()))}, which look like splits; "
                f"expected them to be called train, val and test: rename them"
            )


def _check_no_strangers(root: Path, by_split: Mapping[int, Path], others: Sequence[Path]) -> None:
    """Raise DataError for a folder with images beside the split folders."""
    strangers = [folder.name for folder in others if _has_images(folder)]
    if strangers:
        near = next(filter(None, (nearest(name.casefold(), PLAIN_SPLITS) for name in strangers)), "")
        raise DataError(
            f"{str(root)!r} has {_names(by_split)} and beside it {quoted(strangers)}; expected only folders called train, "
            f"val and test there, with class folders in them: move the others away, and rename a class that is called like a split.{near}"
        )


def _has_images(folder: Path) -> bool:
    return any(map(_is_read, _files(folder, folder.name, frozenset())))


def _names(by_split: Mapping[int, Path]) -> str:
    return " and ".join(repr(by_split[split].name) for split in sorted(by_split))


def _check_whole(root: Path, by_split: Mapping[int, Path]) -> None:
    if TRAIN not in by_split:
        raise DataError(
            f"{str(root)!r} has {_names(by_split)} and no folder of training images; expected train/CLASS/ beside it; "
            f"if these are classes, rename those that are called like a split"
        )
    for path in sorted(root.iterdir()):
        match = ARCHIVE.fullmatch(path.name)
        split = split_of(match[1]) if match and path.is_file() else None
        if split is not None and split not in by_split:
            raise DataError(f"{str(root)!r} has the archive {path.name!r} beside {_names(by_split)}; expected a folder: unpack it")


# --- the form of a level of class folders


def _check_level(root: Path, folder: Path, group: str) -> None:
    """Raise DataError unless the folder holds class folders and nothing but these."""
    classes, loose = _folders(folder), _loose_images(folder)
    place = repr(str(folder))
    if loose:
        raise DataError(f"{place} has images outside of class folders: {quoted(loose)}; {EXPECTED}: move them into class folders, or away")
    if not classes:
        packed = [path.name for path in sorted(folder.iterdir()) if ARCHIVE.fullmatch(path.name)]
        unpack = f"; found {quoted(packed)}: unpack" if packed else ""
        raise DataError(f"found no class folders in {place}; {EXPECTED}{unpack}")
    _check_not_too_high(root, folder)
    _check_no_splits_inside(folder, classes)
    inner = [{path.name for path in _only_folders(one)} for one in classes]
    repeated = sorted(name for name in set().union(*inner) if sum(name in names for names in inner) > 1)
    if group == "none" and len(repeated) > 1:
        holders = [one.name for one, names in zip(classes, inner, strict=True) if names & {*repeated}]
        are_alike = len(holders) == len(classes) and len({frozenset(names) for names in inner}) == 1
        which, verb = ("each of the", "holds") if are_alike else ("more than one of the", "holds some of")
        raise DataError(
            f"{which} folders {quoted(holders)} in {place} {verb} the folders {quoted(repeated)}; expected the "
            f"folders of the classes there: write the path of one of them as root, or merge them; if the folders within are no classes, "
            f"say what they group, as in group: '{OF_CLASS if folder == root else OF_SPLIT}', or '(.+)' if nothing"
        )


def _only_folders(folder: Path) -> list[Path]:
    """The folders in a folder that holds no images beside them; empty if it does."""
    return [] if _loose_images(folder) else _folders(folder)


def _check_not_too_high(root: Path, folder: Path) -> None:
    """Raise DataError if the folder has but one folder, which holds folders: an archive's own."""
    outer = _only_folders(folder)
    if len(outer) > 1 or not _only_folders(outer[0]):
        return
    deepest = outer[0]
    while len(inner := _only_folders(deepest)) == 1 and _only_folders(inner[0]) and split_of(inner[0].name) is None:
        deepest = inner[0]
    way = f"write root: {deepest}" if folder == root else f"move the folders in {_below(root, deepest)!r} up into {folder.name!r}"
    names = quoted(one.name for one in _only_folders(deepest))
    raise DataError(f"{str(folder)!r} has no folder but {_below(folder, deepest)!r}, which holds the folders {names}; {EXPECTED}: {way}")


def _check_no_splits_inside(folder: Path, classes: Sequence[Path]) -> None:
    """Raise DataError for CLASS/train/ instead of train/CLASS/."""
    for one in classes:
        names = [inner.name for inner in _folders(one)]
        splits = {split_of(name) for name in names} - {None}
        if splits and (len(splits) > 1 or all(split_of(name) is not None for name in names)):
            raise DataError(
                f"the class folder {one.name!r} in {str(folder)!r} holds {quoted(names)}, which are called like splits; "
                f"expected train/CLASS/, not CLASS/train/: write root: {one} if that holds the splits"
            )


def _check_class_names(root: Path, folders: Sequence[Path]) -> None:
    """Raise DataError if two folders side by side are one class, or if nothing of a name can be seen."""
    where = repr(str(root))
    first: dict[str, str] = {}
    for folder in folders:
        if is_unseen(folder.name):
            raise DataError(
                f"{where} has the class folder {_below(root, folder)!a}, of whose name nothing is seen; expected one: rename it"
            )
        other = first.setdefault(clean(folder.name), folder.name)
        if other != folder.name:
            raise DataError(
                f"{where} has two folders {_below(root, folder)!r} that differ only in blanks or in their Unicode form, "
                f"{other!a} and {folder.name!a}; expected one for each class: merge or rename them"
            )


def _first_folders(root: Path, folders: Iterable[Path]) -> dict[str, str]:
    """The first folder of each class."""
    classes = [one for folder in folders for one in _folders(folder)]
    return dict(first_places((clean(one.name) for one in classes), (f"folder {_below(root, one)!r}" for one in classes)))


# --- in words


def _origin(parts: Sequence[tuple[int, Path]], root: Path) -> str:
    names = [f"{folder.name}/" for _, folder in parts if folder != root]
    return f"{', '.join(names[:-1])}{' and ' * (len(names) > 1)}{names[-1]} folders" if names else ""


def _remarks(root: Path, parts: Sequence[tuple[int, Path]], names: Sequence[str], group: str) -> Iterator[str]:
    folders = [folder for _, folder in parts]
    yield from passed_over_remark(_passed_over(root, folders, names))
    yield from _other_files(names)
    yield from _masks(names)
    if folders != [root]:
        yield from _split_remarks(root, parts)
    else:
        yield from _flat_remarks(root)
    nested = {one.name for folder in folders for one in _folders(folder) if _folders(one)} if group == "none" else set()
    if nested:
        yield (
            f"images in folders within a class folder count for its class: so in {quoted(sorted(nested))}; if such a folder is one "
            f"patient or scene, group: '{OF_CLASS if folders == [root] else OF_SPLIT}' keeps it in one split"
        )


def _masks(names: Sequence[str]) -> Iterator[str]:
    """A sentence on images that are called like the masks of others beside them; or nothing."""
    stems = {os.path.splitext(name)[0].casefold(): name for name in names if _is_image(name) and not is_passed_over(name)}
    of = {name: stems[base[1]] for stem, name in stems.items() if (base := MASK.fullmatch(stem)) and base[1] in stems}
    if of:
        mask, image = next(iter(of.items()))
        number = f"{len(of):,} images are" if len(of) > 1 else "1 image is"
        yield f"{number} called like a mask of another, as {mask!r} of {image!r}, and counted as of the class: take masks away"


def _passed_over(root: Path, folders: Sequence[Path], names: Iterable[str]) -> set[str]:
    """The folders and images, in split and class folders and beside them, that are hidden or that a system left."""
    levels = {folder: "" if folder == root else f"{_below(root, folder)}/" for folder in (root, *folders)}
    beside = (f"{below}{child.name}{'/' * _is_folder(child)}" for folder, below in levels.items() for child in _children(folder))
    return {name for name in (*beside, *names) if (_is_image(name) or name.endswith("/")) and is_passed_over(name)}


def _other_files(names: Sequence[str]) -> Iterator[str]:
    """A sentence on files among the images that are none by their endings, such as .xmp; or nothing.

    Raises DataError where a folder has more images in formats that are not read, such as .heic, than in those that are.
    """
    others = [name for name in names if not _is_image(name) and not is_passed_over(name)]
    unread = Counter(os.path.dirname(name) for name in others if UNREAD.search(name))
    read = Counter(os.path.dirname(name) for name in names if _is_image(name) and not is_passed_over(name))
    for folder, number in unread.items():
        if number > read[folder]:
            endings = quoted(sorted({os.path.splitext(name)[1].lower() for name in others if UNREAD.search(name)}))
            raise DataError(
                f"the folder {folder!r} has {counted(number, 'image')} that cannot be read ({endings}), {read[folder]} that can; "
                f"expected JPEG, PNG or another plain format: convert them, or take them away"
            )
    if others:
        endings = quoted(sorted({os.path.splitext(name)[1].lower() for name in others}))
        yield f"passed over {len(others):,} files in class folders, whose ending no image has: {endings}"


def _split_remarks(root: Path, parts: Sequence[tuple[int, Path]]) -> Iterator[str]:
    loose, splits = _loose_images(root), dict(parts)
    if loose:
        yield f"passed over images beside the split folders: {quoted(loose)}"
    others = [folder.name for folder in _folders(root) if folder not in splits.values()]
    if others:
        yield f"passed over the folder {quoted(others)}, which has no images"


def _flat_remarks(root: Path) -> Iterator[str]:
    if "train" in (folder.name.casefold() for folder in _folders(root)):
        yield "'train' is read as a class, since it holds images and no class folders"
    place = root.resolve()
    own = split_of(place.name)
    beside = [path.name for path in _folders(place.parent) if split_of(path.name) not in (None, own)] if own is not None else []
    if beside:
        yield f"root is the folder {place.name!r}, and {quoted(beside)} beside it is not used: root can be the folder that holds them all"
