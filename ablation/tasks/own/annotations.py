"""The types of a function's parameters, as planning and a run both read them; it imports nothing that takes long."""

import inspect
from collections.abc import Callable
from typing import Any


def annotation_of(parameter: inspect.Parameter, function: Callable[..., Any]) -> Any:
    """The parameter's annotation, and the type of its default where it has none; raises what a name raises that is not there.

    Each is looked up by itself, since the types of other parameters may be imported for type checkers only.
    """
    annotation, default = parameter.annotation, parameter.default
    if isinstance(annotation, str):
        return _looked_up(annotation, getattr(inspect.unwrap(function), "__globals__", {}))
    if annotation is parameter.empty and not (default is parameter.empty or default is None):
        return type(default)
    return annotation


def _looked_up(annotation: str, names: dict[str, Any]) -> Any:
    """What an annotation that is text stands for."""

    def holder() -> None:
        pass

    holder.__annotations__ = {"": annotation}
    return inspect.get_annotations(holder, globals=names, eval_str=True)[""]
