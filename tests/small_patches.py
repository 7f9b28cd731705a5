"""Small images to change, and settings of changes."""

import numpy as np
import torch

from gliofed.shared.config import AugmentConfig

OFF = AugmentConfig()


def rng(seed=0):
    return np.random.default_rng(seed)


def only(**strengths):
    return AugmentConfig(chance=1, **strengths)


def brain(shape=(3, 2, 6, 7, 8)):
    """(T, C, D, H, W): scores around 0 within a box, 0 outside."""
    image = torch.zeros(shape)
    image[..., 1:5, 1:6, 2:7] = torch.from_numpy(rng(1).standard_normal((*shape[:2], 4, 5, 5), np.float32))
    return image
