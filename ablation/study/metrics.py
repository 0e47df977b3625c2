"""What a kind of work says of its numbers: the final metrics by which arms are compared, and the curves shown during training."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

TEST_ITEMS = "test items"  # the name under which a run of one's own code tells on which items it was tested
READ = "where "  # begins an input of a run that says where a metric is read


@dataclass(frozen=True)
class Metric:
    """A final number of a run, and how it is compared.

    With the `unit` "percent", a fraction is shown in percent and its differences in points; any other unit is shown as it is. `margin`
    is the difference (in points, or in the unit) below which two arms are called equal; without it, no equivalence is claimed.
    """

    name: str  # its name in the store
    title: str  # in the header of a table
    better: Literal["higher", "lower"] = "higher"
    unit: str = "percent"
    margin: float | None = None
    table: str = "comparison"  # the table of the report that has a column for it
    is_headline: bool = False  # whether summaries of arms show it; published figures are of the first headline metric
    words: str = ""  # its name in a sentence, where the title is too short for one
    decimals: int | None = None  # that are shown; None: as its unit has them


def metric_rows(metrics: Iterable[Metric]) -> list[dict[str, Any]]:
    """The metrics as plain data, for a recorded plan."""
    rows = [asdict(metric) for metric in metrics]
    return [{name: value for name, value in row.items() if (name, value) != ("decimals", None)} for row in rows]


@dataclass(frozen=True)
class Curve:
    """A number of each epoch that is shown while a run trains; `name` is its name in the store."""

    name: str
    title: str
    decimals: int


CURVES = ("train/", "val/")  # the beginnings of the names of image classification's curves
NO_CURVES = ("own/", "time/", "epochs/", "choice/")  # those of what one's own training code logged by itself, of costs and of choices


def has_own_code(plan: Mapping[str, Any]) -> bool:
    """Whether a recorded plan is of one's own training code, whose curves may have any name."""
    return bool(plan.get("own"))


def is_curve(plan: Mapping[str, Any], name: str) -> bool:
    """Whether a metric in the store is a curve that reports show: of one's own code, whatever is no declared number of the run."""
    if not has_own_code(plan):
        return name.startswith(CURVES)
    return not name.startswith(NO_CURVES) and all(name != metric["name"] for metric in plan.get("metrics") or ())
