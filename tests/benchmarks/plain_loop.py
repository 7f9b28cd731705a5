"""The default run of gliofed-simulate as a plain loop: the same steps, without files, messages, checks or Flower.

usage: plain_loop.py THREADS
"""

import sys
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from gliofed.shared.data.cases import split
from gliofed.shared.models.clstm_unet3d import CLSTMUNet3D
from gliofed.shared.tasks.segmentation import Segmentation
from gliofed.simulation.mock import MockConfig, draw

SITES, ROUNDS, STEPS, BATCH, LR, CLIP = 4, 4, 8, 2, 0.003, 5.0
DATA = MockConfig(patients=10, visits=5, seed=0)
Series = tuple[Tensor, Tensor]  # (T, 1, D, H, W): image, target


def patients_of(site: int) -> tuple[list[Series], list[Series]]:
    """Training and validation patients, in memory, z-scored."""
    series = {}
    for patient in range(DATA.patients):
        visits = list(draw(DATA, site, patient))
        image = torch.tensor(np.stack([volume for volume, _ in visits]), dtype=torch.float32)[:, None]
        image = (image - image.mean((-3, -2, -1), keepdim=True)) / image.std((-3, -2, -1), keepdim=True)
        target = torch.tensor(np.stack([mask for _, mask in visits]), dtype=torch.float32)[:, None]
        series[f"Mock-{site:02d}{patient:03d}"] = image, target
    train, validation, _ = split(list(series), 0.25, 0)
    return [series[name] for name in train], [series[name] for name in validation]


def batches(patients: list[Series], generator: np.random.Generator) -> Iterator[Series]:
    while True:
        order = generator.permutation(len(patients))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            chosen = [patients[i] for i in order[start : start + BATCH]]
            yield torch.stack([image for image, _ in chosen]), torch.stack([target for _, target in chosen])


def train(model: nn.Module, patients: list[Series], generator: np.random.Generator) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01)
    for _, (image, target) in zip(range(STEPS), batches(patients, generator), strict=False):
        optimizer.zero_grad()
        Segmentation().loss(model(image), target).backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()


def main(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = CLSTMUNet3D(1, 1, (8, 16, 32))
    sites = [patients_of(site) for site in range(SITES)]
    generator = np.random.default_rng(0)
    for number in range(1, ROUNDS + 1):
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        mean = {name: torch.zeros_like(tensor) for name, tensor in before.items()}
        total = sum(len(patients) for patients, _ in sites)
        for patients, _ in sites:
            model.load_state_dict(before)
            train(model, patients, generator)
            for name, tensor in model.state_dict().items():
                mean[name] += tensor * len(patients) / total
        model.load_state_dict(mean)
        scores = []
        with torch.no_grad():
            for _, validation in sites:
                for image, target in validation:
                    prediction = model(image[None]) > 0
                    scores.append(Segmentation().metrics(prediction, target[None], ("object",), (1, 1, 1))["dice"])
        print(f"round {number}: Dice {np.mean(scores):.3f}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
