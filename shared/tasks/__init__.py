from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from gliofed.shared.parse import key_of
from gliofed.shared.tasks.grading import Grading
from gliofed.shared.tasks.segmentation import Segmentation
from gliofed.shared.tasks.task import Label as Label
from gliofed.shared.tasks.task import Task as Task

if TYPE_CHECKING:  # the functions below load PyTorch, the tasks do not
    from torch import nn

    from gliofed.shared.config import DataConfig, RunConfig
    from gliofed.shared.data.dataset import Reading

TASKS: dict[str, Task] = {"segmentation": Segmentation(), "grading": Grading()}
"""What a model is trained for, by the name that a configuration uses. A new one is a file beside these and an entry."""

TaskName = Annotated[str, key_of(TASKS)]


def model_of(run: RunConfig) -> nn.Module:
    """Make the run's model; its weights come from torch's global generator.

    Raises ValueError for a model that is not for the run's task, and what `build_model` raises.
    """
    from gliofed.shared.models import build_model, task_of

    if (task := task_of(run.model.name)) != run.task:
        given = f"task={run.task} is given; leave task out, or use a model for it"
        raise ValueError(f"model.name={run.model.name}: is for task={task}, and {given}")
    return build_model(run.model, len(run.data.modalities), TASKS[run.task].outputs(run.data), run.data.missing)


def some_suffice(data: DataConfig, task: str) -> bool:
    """Return whether a case that lacks some of the modalities, not all, can be used: the model knows which."""
    return data.missing == "mask" or TASKS[task].label is not None


def reading_of(run: RunConfig) -> Reading:
    """Return what one sample of the run is."""
    from gliofed.shared.models import reads_series

    return TASKS[run.task].label or ("series" if reads_series(run.model.name) else "visits")
