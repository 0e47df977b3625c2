"""The figures that others published, in percent: a fraction among them would be shown as a hundredth of what it says."""

from collections.abc import Iterable, Mapping

from ablation.errors import ConfigError


def checked_figures(figures: object, where: str, *, is_percent: bool) -> dict[str, float]:
    """report -> its published figure of the headline metric."""
    if not isinstance(figures, Mapping) or not all(_is_figure(value, is_percent=is_percent) for value in figures.values()):
        expected = f"expected figures{' in percent, from 0 to 100' if is_percent else ''}, by their report, such as {{A: 84.22}}"
        raise ConfigError(f"{where}.published", f"found {figures!r}; {expected}")
    return {str(name): float(value) for name, value in figures.items()}


def _is_figure(value: object, *, is_percent: bool) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and (not is_percent or 0 <= value <= 100)


def check_percent(published: Iterable[tuple[str, Mapping[str, float]]]) -> None:
    """Raise ConfigError for a fraction where percent is expected; each item is a place in the file and its figures.

    A figure of at most 1 is taken for percent only where 100 times as much would be far below what else is published: one percent may be
    what guessing among hundreds of classes gives.
    """
    placed = [(f"{where}.published.{report}", value) for where, figures in published for report, value in figures.items()]
    least = min((value for _, value in placed if value > 1), default=0.0)
    for place, value in placed:
        if 0 < value <= 1 and 100 * value >= least / 2:
            raise ConfigError(place, f"found {value:g}, which reads as a fraction; expected percent, such as {100 * value:.10g}")
