"""Patients measured two at a time, as on a GPU, against one after the other."""

import threading
import time

import pytest
import torch
from small_patches import CPU, lumps

from gliofed.shared.config import DataConfig
from gliofed.shared.data.measuring import measure_each
from gliofed.shared.data.volume import DataError
from gliofed.shared.models.unet import UNet3D
from gliofed.shared.tasks.segmentation import Segmentation

DATA = DataConfig(
    modalities=("t1", "t2"), regions=("et", "wt"), window=1, spacing=None, patch=(8, 8, 8), validation=0, split_seed=0
)


def test_figures_and_order_are_the_same_and_one_forward_pass_runs_at_a_time(tmp_path):
    """The memory of a GPU is sized for one; without gradients, in each thread."""
    torch.manual_seed(0)
    network, patients = UNet3D(2, 2, (4, 8)).eval(), lumps(tmp_path, 4)
    inside, callers = [], set()

    def model(*inputs):
        inside.append(threading.get_ident())
        callers.add(inside[0])
        time.sleep(0.002)  # for another to come in, if it could
        logits = network(*inputs)
        assert not logits.requires_grad
        assert inside == [threading.get_ident()]
        inside.pop()
        return logits

    alone, together = (
        measure_each(Segmentation(), each, patients, DATA, "visits", CPU, workers)
        for each, workers in ((network, 0), (model, 2))
    )
    assert together == alone
    assert len({each["dice"] for each in alone}) > 1 and len(callers) == 2


def test_an_error_of_one_patient_is_raised(tmp_path):
    patients = lumps(tmp_path, 3)
    (patients[1].entries[0] / "mask.npy").unlink()
    with pytest.raises(DataError, match="damaged"):
        measure_each(Segmentation(), UNet3D(2, 2, (4, 8)).eval(), patients, DATA, "visits", CPU, workers=2)
