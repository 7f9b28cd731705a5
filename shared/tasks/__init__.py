from shared.tasks.segmentation import Segmentation

TASKS: dict[str, type[Segmentation]] = {"segmentation": Segmentation}
"""What a model is trained for, by the name that a configuration uses."""
