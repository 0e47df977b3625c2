"""Texts as every store takes them: what is longer than MLflow's columns loses its end, and what no database can hold is a question mark."""

import json
from collections.abc import Mapping
from typing import TypeVar

LONGEST_TAG = 5000  # letters
D = TypeVar("D", dict[str, object], list[object])


def storable(text: str, length: int) -> str:
    """The text without halves of characters, as in names of files that are no UTF-8, without NUL, which PostgreSQL refuses, and so long."""
    return text.replace("\0", "?").encode(errors="replace").decode()[:length]


def title(name: str) -> str:
    """The name of a run."""
    return storable(name, 250)


def tags(values: Mapping[str, str]) -> dict[str, str]:
    """The tags of a run."""
    return {name: storable(value, LONGEST_TAG) for name, value in values.items()}


def params(values: Mapping[str, str]) -> dict[str, str]:
    """The params of a run."""
    return {name: storable(value, 6000) for name, value in values.items()}


def dataset(name: str, digest: str, place: str) -> tuple[str, str, str]:
    """The name of a data set, its digest, and where it lies as MLflow is told."""
    return storable(name, 500), digest[:36], json.dumps({"uri": place})


def plain(text: str, default: D) -> D:
    """The mapping or the list that a tag holds as JSON; `default` of one that cannot be read, such as one that lost its end."""
    try:
        data = json.loads(text)
    except ValueError:
        return default
    return data if isinstance(data, type(default)) else default
