"""Image classification under class imbalance: its settings, its stages, how they become jobs, and what its runs are compared by."""

from ablation.study.task import Task
from ablation.tasks.images.task import ImageClassification

TASK: Task = ImageClassification()
