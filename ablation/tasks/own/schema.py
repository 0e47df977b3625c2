"""The JSON schemas of what a file declares of its own training code, for editors."""

from typing import Any

from ablation.tasks.own.definition import MetricForm, TaskForm


def section_schemas() -> dict[str, Any]:
    """The schemas of `task`, `metrics` and `curves`."""
    metric = MetricForm.model_json_schema(by_alias=True)
    return {
        "task": {"anyOf": [{"type": "string"}, TaskForm.model_json_schema()]},
        "metrics": {"type": "object", "additionalProperties": metric, "minProperties": 1},
        "curves": {"type": "object", "additionalProperties": {"type": "string"}},
    }
