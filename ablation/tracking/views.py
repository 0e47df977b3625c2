"""The state of MLflow's page that is kept with a study: which runs it lists, and which columns."""

from collections.abc import Sequence
from typing import Any

COLUMN_WIDTH = 200  # pixels


def of_runs(search_filter: str, tags: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    """A view of the runs that a filter finds, with columns for these tags and metrics, the newest first."""
    columns = [*(f"tags.`{tag}`" for tag in tags), *(f"metrics.`{metric}`" for metric in metrics), "attributes.`Duration`"]
    return {
        "searchFilter": search_filter,
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": dict.fromkeys(columns, COLUMN_WIDTH),
        "runsHiddenMode": "FIRST_20_RUNS",
    }
