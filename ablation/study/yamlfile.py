"""Reading YAML as plain data: no tags, no repeated keys, no alias bombs; `1e-4` is a number; only true and false are booleans."""

import re
from pathlib import Path
from typing import Any

import yaml

from ablation.errors import ConfigError, nearest

MAX_BYTES = 1_000_000
MAX_NODES = 100_000  # counted with all aliases written out
MAX_DEPTH = 50
MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's scalars and no tags."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  PyYAML reads this class attribute

    def fetch_tag(self) -> None:
        """Refuse every tag, even YAML's own: PyYAML would have to guess what `!!bool maybe` means."""
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
    """The mapping; its keys are text, exactly as written: 0.10 and 0.1 are two names."""
    loader.flatten_mapping(node)
    return {name.value: loader.construct_object(value, deep=True) for name, value in node.value}


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value, 16 if node.value.startswith("0x") else 10)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:int", _int)


def parse(text: str, where: str) -> Any:
    """The data in a YAML text; raises ConfigError, with `where` and the line, if it cannot be read."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node, {}, 0)
        return loader.construct_document(node)
    except ConfigError as error:
        raise ConfigError(", ".join(filter(None, [where, error.path])), error.problem) from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_place(where, error), f"is not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(where, f"is not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(where, _too_deep_problem()) from None
    except (ValueError, OverflowError) as error:
        raise ConfigError(where, f"holds a value that cannot be read: {error}") from None


def _too_deep_problem() -> str:
    return f"is nested deeper than {MAX_DEPTH} levels; expected a study's file"


def _place(where: str, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f"{where}, line {mark.line + 1}" if mark else where


def _check_size(node: yaml.Node, sizes: dict[int, tuple[int, int]], depth: int) -> tuple[int, int]:
    """The (number of nodes, number of levels) of a node, with aliases written out.

    Raises ConfigError for an alias bomb, a node inside itself, or a repeated key.
    """
    if id(node) not in sizes:
        if depth > MAX_DEPTH:
            raise ConfigError("", _too_deep_problem())
        sizes[id(node)] = (0, 0)
        children = _children(node)
        child_sizes = [_check_size(child, sizes, depth + 1) for child in children]
        sizes[id(node)] = 1 + sum(nodes for nodes, _ in child_sizes), 1 + max((levels for _, levels in child_sizes), default=0)
    nodes, levels = sizes[id(node)]
    if nodes == 0:
        raise ConfigError("", "an anchor holds itself; expected plain data")
    if nodes > MAX_NODES:
        raise ConfigError("", f"holds more than {MAX_NODES:,} values once its aliases are written out; expected a study's file")
    if depth + levels > MAX_DEPTH:
        raise ConfigError("", _too_deep_problem())
    return nodes, levels


def _children(node: yaml.Node) -> list[yaml.Node]:
    """The child nodes; raises ConfigError if this node's own keys or text are wrong."""
    if isinstance(node, yaml.MappingNode):
        _check_keys(node)
        return [child for pair in node.value for child in pair]
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    _check_text(node)
    return []


def _check_keys(node: yaml.MappingNode) -> None:
    """Raise ConfigError for a key that is not plain text or is repeated; called before merging, which may repeat keys."""
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigError(f"line {line}", "found a list or a mapping as a key; expected a name")
        if key.value in lines and key.tag != MERGE:
            raise ConfigError(f"line {line}", f"the key {key.value!r} is given twice (first in line {lines[key.value]}); expected it once")
        lines[key.value] = line


def _check_text(node: yaml.Node) -> None:
    """Raise ConfigError for an escape that makes half a character, which can be neither printed nor stored."""
    try:
        str(node.value).encode()
    except UnicodeEncodeError:
        raise ConfigError(f"line {node.start_mark.line + 1}", f"found {node.value!r}; expected text in UTF-8") from None


def read(path: Path, holding: str = "study, seeds, base ...") -> dict[str, Any]:
    """The mapping in a YAML file; raises ConfigError if the file is missing, too large, or holds something else."""
    try:
        if path.is_dir():
            raise ConfigError(str(path), "is a folder; expected a study's YAML file")
        if not path.is_file():
            suggestion = nearest(path.name, [file.name for file in path.parent.glob("*.y*ml")]) if path.parent.is_dir() else ""
            raise ConfigError(str(path), f"there is no such file; expected a study's YAML file.{suggestion}")
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(str(path), f"has {path.stat().st_size:,} bytes; expected a study's file, of at most {MAX_BYTES:,}")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(str(path), "is not text in UTF-8; expected a study's YAML file") from None
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from None
    data = parse(text, path.name)
    if not isinstance(data, dict):
        kind = "nothing" if data is None else "a list" if isinstance(data, list) else "a single value"
        raise ConfigError(path.name, f"holds {kind}; expected a mapping with {holding}")
    return data
