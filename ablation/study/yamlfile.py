"""A YAML file as plain data: no tags, no repeated keys, no bombs, `1e-4` a number, and only true and false booleans."""

import re
from pathlib import Path
from typing import Any

import yaml

from ablation.errors import ConfigError, nearest

MAX_BYTES = 1_000_000
MAX_NODES = 100_000  # counted with every alias written out
MAX_DEPTH = 50
MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's scalars and no tags."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  PyYAML reads this class attribute

    def fetch_tag(self) -> None:
        """Refuse every tag, also those that YAML itself defines: `!!bool maybe` would be guessed."""
        line = self.line + 1
        handle, suffix = self.scan_tag().value
        raise ConfigError(f"line {line}", f"found the tag {(handle or '') + suffix!r}; expected plain YAML, without tags")


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+.0123456789"),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    """The mapping, its keys being texts as they are written: 0.10 and 0.1 are two names."""
    loader.flatten_mapping(node)
    return {name.value: loader.construct_object(value, deep=True) for name, value in node.value}


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value, 16 if node.value.startswith("0x") else 10)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:int", _int)


def parse(text: str, where: str) -> Any:
    """The data in a YAML text; raises ConfigError, naming `where` and the line, for anything else."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, {}, 0)
        return loader.construct_document(node)
    except ConfigError as error:
        raise ConfigError(", ".join(filter(None, [where, error.path])), error.problem) from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_place(where, error), f"is no YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(where, f"is no YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(where, _too_deep()) from None
    except (ValueError, OverflowError) as error:
        raise ConfigError(where, f"holds a value that cannot be read: {error}") from None


def _too_deep() -> str:
    return f"is nested deeper than {MAX_DEPTH} levels; expected a study's file"


def _place(where: str, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f"{where}, line {mark.line + 1}" if mark else where


def _check(node: yaml.Node, known: dict[int, tuple[int, int]], depth: int) -> tuple[int, int]:
    """The number of nodes and of levels below, aliases written out; a bomb, a node inside itself or a repeated key is an error."""
    if id(node) not in known:
        if depth > MAX_DEPTH:
            raise ConfigError("", _too_deep())
        known[id(node)] = (0, 0)
        parts = _parts(node)
        below = [_check(part, known, depth + 1) for part in parts]
        known[id(node)] = 1 + sum(nodes for nodes, _ in below), 1 + max((levels for _, levels in below), default=0)
    nodes, levels = known[id(node)]
    if nodes == 0:
        raise ConfigError("", "an anchor holds itself; expected plain data")
    if nodes > MAX_NODES:
        raise ConfigError("", f"holds more than {MAX_NODES:,} values once its aliases are written out; expected a study's file")
    if depth + levels > MAX_DEPTH:
        raise ConfigError("", _too_deep())
    return nodes, levels


def _parts(node: yaml.Node) -> list[yaml.Node]:
    """The nodes directly below, once this one's own keys or text are found right."""
    if isinstance(node, yaml.MappingNode):
        _check_keys(node)
        return [part for pair in node.value for part in pair]
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    _check_text(node)
    return []


def _check_keys(node: yaml.MappingNode) -> None:
    """Raise where a key is no plain text or is given twice; before merging, which may repeat keys."""
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError(f"line {line}", "found a list or a mapping as a key; expected a name")
        if key.value in lines and key.tag != MERGE:
            raise ConfigError(f"line {line}", f"the key {key.value!r} is given twice (first in line {lines[key.value]}); expected it once")
        lines[key.value] = line


def _check_text(node: yaml.Node) -> None:
    """Raise where an escape makes half a character, which can be neither printed nor stored."""
    try:
        str(node.value).encode()
    except UnicodeEncodeError:
        raise ConfigError(f"line {node.start_mark.line + 1}", f"found {node.value!r}; expected text in UTF-8") from None


def read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises ConfigError where the file is missing, too large, or holds something else."""
    try:
        if path.is_dir():
            raise ConfigError(str(path), "is a folder; expected a study's YAML file")
        if not path.is_file():
            near = nearest(path.name, [other.name for other in path.parent.glob("*.y*ml")]) if path.parent.is_dir() else ""
            raise ConfigError(str(path), f"there is no such file; expected a study's YAML file.{near}")
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(str(path), f"has {path.stat().st_size:,} bytes; expected a study's file, of at most {MAX_BYTES:,}")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(str(path), "is no text in UTF-8; expected a study's YAML file") from None
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from None
    data = parse(text, path.name)
    if not isinstance(data, dict):
        found = "nothing" if data is None else "a list" if isinstance(data, list) else "a single value"
        raise ConfigError(path.name, f"holds {found}; expected a mapping with study, seeds, base ...")
    return data
