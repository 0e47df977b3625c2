"""A page of figures, which has a name before it is drawn, and the arms that pages show."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd
from matplotlib.figure import Figure

from ablation.report.figures.fonts import drawable
from ablation.report.figures.style import BESIDE, COLUMN, styled

T = TypeVar("T")
WITH_DASHES = ("drop_one", "add_one")


@dataclass(frozen=True)
class Page:
    """One file of figures: its name, its kind (`differences`, `curves`, ...), its title and the function that draws it.

    `alt` is the text for readers who cannot see it. A page without a PNG stands by itself, and no document shows it.
    """

    name: str
    what: str
    title: str
    alt: str
    draw: Callable[[], Figure]
    column: Callable[[], Figure] | None = None  # the same for a column of a paper
    suffixes: tuple[str, ...] = ("png", "svg")

    @property
    def is_shown(self) -> bool:
        """Whether documents show it."""
        return "png" in self.suffixes


def numbered(
    what: str,
    title: str,
    parts: Sequence[T],
    draw: Callable[[T], Figure],
    alt: Callable[[T], str],
    column: Callable[[T], Figure] | None = None,
) -> list[Page]:
    """One page per part: `slopes-1`, `slopes-2`, ...; titles have the number if there are several. `column` draws it for a paper."""

    def page(number: int, part: T) -> Page:
        place = f" ({number} of {len(parts)})" if len(parts) > 1 else ""
        narrow = None if column is None else _in_style(column, part)
        return Page(f"{what}-{number}", what, f"{title}{place}", alt(part), _in_style(draw, part), narrow)

    return [page(number, part) for number, part in enumerate(parts, start=1)]


def sized(
    name: str, what: str, title: str, alt: str, draw: Callable[[float], Figure], *, wide: float = BESIDE, for_paper: bool = True
) -> Page:
    """One page of a figure that is laid out for a width in inches: beside a table (or `wide`), and in a column of a paper."""
    return Page(name, what, title, alt, _in_style(draw, wide), _in_style(draw, COLUMN) if for_paper else None)


def _in_style(draw: Callable[[T], Figure], part: T) -> Callable[[], Figure]:
    def drawn() -> Figure:
        with styled():
            return draw(part)

    return drawn


def file_name(text: str) -> str:
    """The name of the file of a family or an arm: `drop-one`, `sweep-alpha`, `no-lag-cb`."""
    plain = re.sub(r"[^\w.-]", "-", text.replace("_", "-") if text in WITH_DASHES else text)
    return plain.strip(".") or "arm"


def chunks(items: Sequence[T], size: int) -> list[list[T]]:
    """The items in lists of that size, the last one shorter."""
    return [list(items[first : first + size]) for first in range(0, len(items), size)]


@dataclass(frozen=True)
class ArmsShown:
    """The arms with a finished run; `names` has the name of each in figures.

    Arms with the same settings are drawn once; `stands_for` has the arm that is drawn.
    """

    names: Mapping[str, str]
    stands_for: Mapping[str, str]
    kinds: Mapping[str, str]
    baselines: Mapping[str, str]

    def arms(self, *, conditions: bool) -> list[str]:
        """The arms to draw, the ladder first; with `conditions` also those under conditions."""
        kept = [arm for arm in self.names if conditions or self.kinds[arm] != "condition"]
        return sorted(kept, key=lambda arm: self.kinds[arm] != "ladder")

    def baseline(self, arm: str) -> str:
        """The arm that is drawn for this arm's baseline; "" if there is none."""
        baseline = self.baselines[arm]
        return self.stands_for.get(baseline, baseline)

    def compared(self, having: Mapping[str, Any]) -> list[str]:
        """The arms outside conditions that are in `having`, together with their baselines."""
        return [arm for arm in self.arms(conditions=False) if arm in having and self.baseline(arm) in having and self.baseline(arm) != arm]


def arms_shown(arms: pd.DataFrame) -> ArmsShown:
    """The arms to draw, from the frame with one row per arm."""
    done = arms[arms["n"] > 0].set_index("arm")
    stands_for = {str(arm): str(same) if same in done.index else str(arm) for arm, same in done["same_as"].items()}
    names: dict[str, str] = {}
    for arm, drawn in stands_for.items():
        names[drawn] = f"{names[drawn]} = {arm}" if drawn in names else arm
    kinds, baselines = ({str(arm): str(value) for arm, value in done[column].items()} for column in ("kind", "baseline"))
    shown = dict(zip(names, drawable(list(names.values()), "arm"), strict=True))
    return ArmsShown(shown, stands_for, kinds, baselines)


def family(arm: str, kind: str) -> str:
    """The family of an arm: the ladder, the variants, one sweep, one condition, ..."""
    first = arm.partition("/")[0]
    return {"variant": "variants", "sweep": f"sweep {first}", "condition": f"condition {first}"}.get(kind, kind)


def some(names: Sequence[str], most: int = 6) -> str:
    """The names in words, shortened if there are many: `cb, mixup, ls and 9 more`."""
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
