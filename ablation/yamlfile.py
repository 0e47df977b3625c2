"""A YAML file as plain data: no tags, no repeated keys, no bombs, `1e-4` a number, and only true and false booleans."""

import re
from pathlib import Path
from typing import Any

import yaml

from ablation.errors import ConfigError, nearest

MAX_BYTES = 1_000_000
MAX_NODES = 100_000  # counted with every alias written out


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's scalars and no repeated keys."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  PyYAML reads this class attribute


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+.0123456789"),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[str, int] = {}
    for key_node, _ in node.value:
        if key_node.value in seen and key_node.tag != "tag:yaml.org,2002:merge":
            place = f"line {key_node.start_mark.line + 1}"
            raise ConfigError(place, f"the key {key_node.value!r} is given twice (first in line {seen[key_node.value]}); expected it once")
        seen[str(key_node.value)] = key_node.start_mark.line + 1
    loader.flatten_mapping(node)
    return {str(loader.construct_object(k, deep=True)): loader.construct_object(v, deep=True) for k, v in node.value}


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
        _check_size(node, {}, where)
        return loader.construct_document(node)
    except ConfigError as error:
        raise ConfigError(f"{where}, {error.path}" if error.path.startswith("line") else error.path, error.problem) from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_place(where, error), _problem(error)) from None
    except yaml.YAMLError as error:
        raise ConfigError(where, f"is no YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(where, "is nested too deeply; expected a study's file") from None
    except ValueError as error:
        raise ConfigError(where, f"holds a value that cannot be read: {error}") from None


def _place(where: str, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f"{where}, line {mark.line + 1}" if mark else where


def _problem(error: yaml.MarkedYAMLError) -> str:
    if isinstance(error, yaml.constructor.ConstructorError) and "tag" in str(error.problem):
        tag = str(error.problem).split("'")[1] if "'" in str(error.problem) else "?"
        return f"found the tag {tag!r}; expected plain YAML, without tags"
    return f"is no YAML: {error.problem}"


def _check_size(node: yaml.Node, sizes: dict[int, int], where: str) -> int:
    """The number of nodes below this one with aliases written out; a bomb or a node inside itself is an error."""
    if id(node) in sizes:
        if sizes[id(node)] < 0:
            raise ConfigError(where, "an anchor holds itself; expected plain data")
        return sizes[id(node)]
    sizes[id(node)] = -1
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        parts = list(node.value)
    total = 1 + sum(_check_size(part, sizes, where) for part in parts)
    if total > MAX_NODES:
        raise ConfigError(where, f"holds more than {MAX_NODES:,} values once its aliases are written out; expected a study's file")
    sizes[id(node)] = total
    return total


def read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; raises ConfigError where the file is missing, too large, or holds something else."""
    if not path.is_file():
        near = nearest(path.name, [other.name for other in path.parent.glob("*.y*ml")]) if path.parent.is_dir() else ""
        raise ConfigError(str(path), f"there is no such file; expected a study's YAML file.{near}")
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(str(path), f"has {path.stat().st_size:,} bytes; expected a study's file, of at most {MAX_BYTES:,}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(str(path), "is no text in UTF-8; expected a study's YAML file") from None
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror}") from None
    data = parse(text, path.name)
    if not isinstance(data, dict):
        raise ConfigError(
            path.name, f"holds {'nothing' if data is None else type(data).__name__}; expected a mapping with study, seeds, base ..."
        )
    return data
