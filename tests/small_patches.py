"""Small images to change, and settings of changes."""

import numpy as np
import torch

from gliofed.shared.config import AugmentConfig
from gliofed.shared.data.augment import draw_changes
from gliofed.shared.data.cache import Entry, keep
from gliofed.shared.data.dataset import Patient
from gliofed.shared.data.draw import of_one
from gliofed.shared.data.transforms import foreground_voxels, region_voxels

OFF = AugmentConfig()
CPU = torch.device("cpu")


def rng(seed=0):
    return np.random.default_rng(seed)


def patch(patient, data, train, rng, series):
    """Image and target of one sample, without a batch's axis."""
    batch = of_one(patient, data, train, rng, "series" if series else "visits", 1).to(CPU)
    return batch.image[0], batch.target[0]


def drawn(config, rng, channels=2, spacing=(1.0, 1.0, 1.0)):
    """Changes of one sample of so many modalities, which are all present."""
    return draw_changes(config, spacing, [True] * channels, rng)


def entry_of(image, mask, spacing):
    """An entry of all modalities, (V, C, D, H, W), with its mask's voxels looked up as `prepare` does."""
    return Entry(image, mask, foreground_voxels(mask), region_voxels(mask), np.ones(image.shape[:2], bool), spacing)


def lumps(folder, number):
    """Patients of three visits in a cache, each a lump of brain with a tumour; every second one has a high grade."""
    made = []
    for place in range(number):
        image = np.zeros((3, 2, 14, 12, 10), np.float16)
        image[..., 2:12, 2:10, 1:9] = rng(place).standard_normal((3, 2, 10, 8, 8))
        mask = np.zeros((3, 2, 14, 12, 10), np.uint8)
        mask[:, 1, 4:9, 4:8, 3:7] = 1
        mask[:, 0, 5:7, 5:7, 4:6] = 1
        entry = entry_of(image, mask, (1.0, 1.0, 2.0))
        path = keep({"of": place}, lambda entry=entry: entry, folder)
        made.append(Patient(f"P{place}", ("0", "1", "2"), (path,), ("LGG", "HGG")[place % 2]))
    return made


def only(**strengths):
    return AugmentConfig(chance=1, **strengths)


def brain(shape=(3, 2, 6, 7, 8)):
    """(T, C, D, H, W): scores around 0 within a box, 0 outside."""
    image = torch.zeros(shape)
    image[..., 1:5, 1:6, 2:7] = torch.from_numpy(rng(1).standard_normal((*shape[:2], 4, 5, 5), np.float32))
    return image
