"""The seeds that a claim takes, and the command that adds them."""

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd

from ablation.report.metrics import MetricTable
from ablation.report.overview.best import Best
from ablation.report.statistics import inference
from ablation.report.statistics.differences import UNTESTED, pooled_sd

MOST_IN_A_COMMAND = 24
MOST_OF_A_COMMAND = 240  # characters of a command in a sentence
INCONCLUSIVE = "inconclusive"  # how such verdicts begin
KEPT = ("--profile", "--set", "--device", "--executor", "--ray-address")  # of the recorded command, since they say what is trained
KEPT_FLAGS = ("--allow-code",)
OTHERS = ("--arm", "--seed", "--jobs", "--rerun", "--budget", "--save-every", "--part")  # the other options of `run` with a value


@dataclass(frozen=True)
class More:
    """What more seeds would show: of the comparisons in `family`, `tests` in number, with the baseline (or the parents).

    `present` is the number of seeds that both arms of an undecided comparison have, of the one with the fewest; `is_even` says whether
    it is that of all seeds, and `fewest` are the arms that have so few where not all have. `floor` is the fewest seeds with which the
    sign-flip test can confirm any of them, after those that it confirms already. `for_best` finds a difference as large as the best arm's
    with 80 % power, `for_margin` one as large as the margin; both may be infinite (above 1,000) or NaN, the first if the difference is
    shown, or should be by now. If `is_without_luck`, it is the difference that is left without the luck of having been picked. `seeds` is
    what the command runs in all, none if so many would be more than anyone types.
    """

    present: int
    fewest: Sequence[str]
    is_even: bool
    family: str
    tests: int
    floor: int
    for_best: float
    is_without_luck: bool
    for_margin: float
    seeds: Sequence[int]
    command: str

    @property
    def has_long_command(self) -> bool:
        """Whether the command is too long for a sentence."""
        return len(self.command) > MOST_OF_A_COMMAND


def more_seeds(plan: Mapping[str, Any], differences: pd.DataFrame, metric: str, best: Best | None, metrics: MetricTable) -> More | None:
    """The seeds that would claim more; None where no two arms share a seed, or nothing is left open."""
    rows = differences[(differences["metric"] == metric) & ~differences["verdict"].isin(UNTESTED) & (differences["pairs"] > 0)]
    part = _family_of(rows, best)
    if part.empty or not _is_open(part):
        return None
    undecided = part[[_is_undecided(str(verdict)) for verdict in part["verdict"]]]
    present, tests = int(undecided["pairs"].min()), max(1, int(part["tests"].max()))
    fewest = () if part["pairs"].nunique() == 1 else tuple(undecided["arm"][undecided["pairs"] == present])
    floor = inference.seeds_needed_to_flip(tests - _num_confirmed(part))
    for_margin = max(float(part["seeds_needed"].max()), floor) if metrics.margin(metric) is not None else math.nan
    effect = _effect(best, is_lower_better=metrics.is_lower_better(metric))
    for_best = _for_effect(part, effect, tests, present)
    wanted = floor if present < floor else for_margin if math.isnan(for_best) else for_best
    is_typed = math.isfinite(wanted) and present < wanted <= MOST_IN_A_COMMAND
    seeds = with_more(list(map(int, plan["seeds"])), int(wanted)) if is_typed else ()
    command = run_command(plan, seeds, [*undecided["against"], *undecided["arm"]]) if seeds else ""
    return More(
        present=present,
        fewest=fewest,
        is_even=present == len(plan["seeds"]),
        family=str(part["family"].iloc[0]),
        tests=tests,
        floor=floor,
        for_best=for_best,
        is_without_luck=best is not None and math.isfinite(best.repeated) and not best.is_steady,
        for_margin=for_margin,
        seeds=seeds,
        command=command,
    )


def _family_of(rows: pd.DataFrame, best: Best | None) -> pd.DataFrame:
    """The comparisons with the baseline in the best arm's family; else those of the first family with any."""
    of_baseline = rows[rows["role"] == "baseline"]
    own = str(best.row.vs_baseline.get("family", "")) if best else ""
    family = own or next(iter(of_baseline["family"]), "")
    return of_baseline[of_baseline["family"] == family]


def _num_confirmed(rows: pd.DataFrame) -> int:
    """The tests of the family that both kinds of test have decided, of which Holm's correction is rid; names of one training share one."""
    decided = rows[(rows["p_t_holm"] <= inference.LEVEL) & (rows["p_flip_holm"] <= inference.LEVEL)]
    return len(decided[["mean", "p_t", "p_flip"]].drop_duplicates())


def _is_open(rows: pd.DataFrame) -> bool:
    """Whether any of the comparisons is undecided, or decided by the t test alone."""
    return any(_is_undecided(str(verdict)) for verdict in rows["verdict"])


def _is_undecided(verdict: str) -> bool:
    return not verdict or verdict.startswith(INCONCLUSIVE) or "t only" in verdict


def _effect(best: Best | None, *, is_lower_better: bool) -> float:
    """The best arm's gain on the baseline, without luck if that is known; NaN if there is none, or if it is shown already."""
    pair = best.row.vs_baseline if best else {}
    if best is None or not pair or not _is_undecided(str(pair["verdict"])):
        return math.nan
    difference = best.repeated if math.isfinite(best.repeated) else float(pair["mean"])
    gain = -difference if is_lower_better else difference
    return gain if gain > 0 else math.nan


def _for_effect(rows: pd.DataFrame, effect: float, tests: int, present: int) -> float:
    """The seeds that find a difference of that size, by the pooled deviation of these rows; NaN if as many are there."""
    by_t = float(inference.seeds_needed(pooled_sd(rows), effect, tests)) if effect > 0 else math.nan
    needed = by_t if math.isnan(by_t) else max(by_t, float(inference.seeds_needed_to_flip(tests)))
    return needed if needed > present else math.nan


def with_more(seeds: Sequence[int], number: int) -> list[int]:
    """These seeds and the smallest others, `number` in all."""
    others = (seed for seed in range(number + len(seeds)) if seed not in seeds)
    return [*seeds, *(next(others) for _ in range(number - len(seeds)))]


def run_command(plan: Mapping[str, Any], seeds: Sequence[int], arms: Sequence[str] = ()) -> str:
    """The command that runs the plan's file with these seeds, as the plan was run otherwise: these arms, if it was run with some alone."""
    command = str(plan.get("command") or "")
    words = ["ablate", "run", recorded_file(command) or str(plan.get("file") or "FILE"), *kept_options(command)]
    if "--arm" in _words(command):
        names = [arm["name"] for arm in plan.get("arms", ()) if arm["name"] in set(arms)]
        words += [word for name in names for word in ("--arm", name)]
    return shlex.join([*words, *(word for seed in sorted(seeds) for word in ("--seed", str(seed)))])


def recorded_file(command: str) -> str:
    """The file of a recorded command, as it was written there, with its folder; empty if the command is none of `run`."""
    words = _words(command)
    starts = [place for place, word in enumerate(words) if word == "run" and words[place - 1] in ("ablate", "ablation")]
    rest = words[starts[0] + 1 :] if starts else []
    is_value = [before in (*KEPT, *OTHERS) for before in ["", *rest]]
    return next((word for word, belongs in zip(rest, is_value, strict=False) if not belongs and not word.startswith("-")), "")


def kept_options(command: str) -> list[str]:
    """The options of a recorded command that say what is trained, and that old results are used: `--profile quick --rerun keep`."""
    words = _words(command)
    pairs = [(word, value) for word, value in pairwise(words) if word in KEPT or (word, value) == ("--rerun", "keep")]
    return [*(part for pair in pairs for part in pair), *(word for word in words if word in KEPT_FLAGS)]


def _words(command: str) -> list[str]:
    """The words of a command, with `--option=value` as two."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    return [part for word in words for part in (word.split("=", 1) if re.match(r"--[a-z-]+=", word) else [word])]
