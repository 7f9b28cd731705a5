from torch import nn

from gliofed.shared.config import RunConfig
from gliofed.shared.data.dataset import Reading
from gliofed.shared.models import build_model, reads_series, task_of
from gliofed.shared.tasks.grading import Grading
from gliofed.shared.tasks.segmentation import Segmentation

Task = type[Segmentation] | type[Grading]

TASKS: dict[str, Task] = {"segmentation": Segmentation, "grading": Grading}
"""What a model is trained for, by the name that a configuration uses."""


def model_of(run: RunConfig) -> nn.Module:
    """Make the run's model; its weights come from torch's global generator.

    Raises ValueError for a model that is not for the run's task, and what `build_model` raises.
    """
    if (task := task_of(run.model.name)) != run.task:
        raise ValueError(f"model.name={run.model.name}: is for task={task}, and task={run.task} is given")
    return build_model(run.model, len(run.data.modalities), TASKS[run.task].outputs(run.data))


def reading_of(run: RunConfig) -> Reading:
    """Return what one sample of the run is."""
    return "graded" if run.task == "grading" else "series" if reads_series(run.model.name) else "visits"
