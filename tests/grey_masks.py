"""Cases whose image is their mask, in grey values, and a network that only compares values: it predicts the mask."""

import nibabel as nib
import numpy as np
import torch
from torch import nn

from gliofed.client.prediction.predict import Predictor, predict
from gliofed.shared.config import DataConfig, ModelConfig
from gliofed.shared.data.layouts import find_cases
from gliofed.shared.exported import Exported

BRAIN = {0: 100, 2: 200, 1: 300, 4: 400}
"""Grey value of each label of BraTS 2020, from outside to inside."""
CPU = torch.device("cpu")


class Compare(nn.Module):
    """Logits of ET, TC, WT from the first modality alone: whether a value is above each region's threshold."""

    def __init__(self, thresholds, most_visits=1):
        super().__init__()
        self.thresholds, self.most_visits = torch.tensor(thresholds).view(-1, 1, 1, 1), most_visits

    def forward(self, x):
        if x.dim() == 6:
            assert x.shape[1] <= self.most_visits
        return 50 * (x[..., :1, :, :, :] - self.thresholds)


def balls(shape, spacing, centre=(0.4, 0.55, 0.45)):
    """Labels of nested balls of 8, 5.5 and 3 mm, off the centre, so that a turned volume is another."""
    grid = np.indices(shape).astype(float)
    away = [(axis - place * size) * mm for axis, place, size, mm in zip(grid, centre, shape, spacing, strict=True)]
    distance = np.sqrt(np.sum(np.square(away), axis=0))
    return np.select([distance < 3, distance < 5.5, distance < 8], [4, 1, 2], 0).astype(np.uint8)


def picture(labels):
    """Grey values of labels in a brain that leaves a margin of 2 voxels on one side and 1 on the other."""
    image = np.zeros(labels.shape, np.int16)
    inside = (slice(2, -1),) * 3
    image[inside] = np.vectorize(BRAIN.get)(labels[inside])
    return image


def thresholds(image):
    """Thresholds of ET, TC and WT, half way between grey values, as z-scores of the image."""
    brain = image[image != 0].astype(float)
    return [(value - brain.mean()) / brain.std() for value in (350.0, 250.0, 150.0)]


def save(path, voxels, affine, codes=(1, 1)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, affine)
    image.set_qform(affine, code=codes[0])
    image.set_sform(affine, code=codes[1])
    nib.save(image, path)


def config(**changes):
    data = {"modalities": ("t1",), "regions": ("et", "tc", "wt"), "window": 1, "spacing": None}
    return DataConfig(**data | {"patch": (64, 64, 64), "validation": 0.25, "split_seed": 0} | changes)


def predictor(network, data, name="unet", task="segmentation"):
    exported = Exported(task=task, model=ModelConfig(name=name, preset="demo"), data=data, run_id="run", round=1)
    return Predictor(network.eval(), exported, CPU)


def run(network, data, root, out, name="unet", labels="brats2020", task="segmentation"):
    return predict(predictor(network, data, name, task), find_cases(root, labels), labels, out, lambda line: None)
