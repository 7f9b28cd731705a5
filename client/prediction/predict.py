"""Prediction: an exported model on cases; masks are written in each case's own space and labels."""

import csv
import gzip
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import groupby
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform
from torch import Tensor, nn

from gliofed.client.doctor.findings import Finding
from gliofed.client.doctor.inspection import inspect
from gliofed.client.doctor.judgement import judge
from gliofed.client.round.memory import ran_out
from gliofed.client.round.policy import DeclinedError
from gliofed.client.round.states import States
from gliofed.shared.algorithms.fedbn import HOME
from gliofed.shared.codec import load_weights, travelling, weights_from_bytes
from gliofed.shared.data.cases import Case
from gliofed.shared.data.labels import labels_of
from gliofed.shared.data.prepare import Images, block_entry, images_of, prepare_images
from gliofed.shared.data.volume import DataError, Scan, read_image
from gliofed.shared.exported import Exported
from gliofed.shared.files import write_bytes
from gliofed.shared.models import build_model, reads_series, task_of
from gliofed.shared.parse import ConfigError
from gliofed.shared.run_folder import ModelFolder
from gliofed.shared.site_config import CheckConfig
from gliofed.shared.tasks import TASKS, Label, Task
from gliofed.shared.wording import quantity
from gliofed.shared.work_folder import WorkFolder

LONGEST = 200
"""Bytes of a case's name in a file's name; file systems take 255 in all, a letter has four at most."""

_SPACE = (
    *("qform_code", "sform_code", "xyzt_units", "srow_x", "srow_y", "srow_z"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
)
_RAS = np.array([[0, 1], [1, 1], [2, 1]])


@dataclass(frozen=True)
class Predictor:
    """A trained model, ready to predict."""

    network: nn.Module
    """In evaluation mode, on `device`."""
    exported: Exported
    device: torch.device

    @property
    def task(self) -> Task:
        """What the model was trained for."""
        return TASKS[self.exported.task]


@dataclass(frozen=True)
class Outcome:
    """What became of the cases."""

    report: Callable[[str], None]
    """Hears a line about each case that is done."""
    predicted: dict[str, list[Finding]] = field(default_factory=dict)
    """Name of a case that was predicted -> what a check says of its images."""
    faults: dict[str, str] = field(default_factory=dict)
    """Name of a case that could not be predicted -> what to mend."""

    def succeed(self, case: Case, what: str, found: list[Finding]) -> None:
        """Note a prediction."""
        self.predicted[case_name(case)] = found
        self.report(f"{case_name(case)}: {what}{', with warnings' if found else ''}")

    def fail(self, cases: Sequence[Case], sentence: str) -> None:
        """Note a fault of those of the cases of which nothing is known yet."""
        for name in map(case_name, cases):
            if name not in self.predicted and name not in self.faults:
                self.faults[name] = sentence
                self.report(f"{name}: failed")


def load(folder: Path, exported: Exported, device: torch.device, work: Path | None = None) -> Predictor:
    """Build the model and put the weights of `folder` into it, and those that the site of the folder `work` has of its
    own, where the model has such.

    Raises ConfigError: weights that are damaged, of another shape or not there; ValueError: an option that the model
    has not.
    """
    config, data, path = exported.model, exported.data, ModelFolder(folder).weights
    if (task := task_of(config.name)) != exported.task:
        raise ConfigError(f"{folder}: {config.name} is for task={task}, and task={exported.task} is given")
    network = build_model(config, len(data.modalities), TASKS[exported.task].outputs(data), data.missing)
    try:
        weights = weights_from_bytes(path.read_bytes())
        for name, tensor in travelling(network).items():
            if name in weights and weights[name].shape != tensor.shape:
                raise ConfigError(f"{name} is {tuple(weights[name].shape)}, in the model {tuple(tensor.shape)}")
        load_weights(network, weights, exported.at_home)
    except (OSError, ValueError) as error:
        cure = "copy both files of the model/ of one run, or take the version of gliofed that wrote them"
        raise ConfigError(f"{path}: {error}; {cure}") from None
    if exported.at_home:
        try:
            network.load_state_dict(_own_tensors(folder, exported, work), strict=False)
        except RuntimeError:  # of another shape
            raise ConfigError(f"work={work}: what the site keeps does not fit {path}; give files of one run") from None
    return Predictor(network.to(device).eval(), exported, device)


def _own_tensors(folder: Path, exported: Exported, work: Path | None) -> dict[str, Tensor]:
    """What a site kept to itself of the run that left this model."""
    if work is None:
        sentence = f"lacks {quantity(len(exported.at_home), 'tensor')}, which each site has of its own"
        raise ConfigError(f"model={folder}: {sentence}; give work=DIR, the work folder of a site that took part")
    states = States(WorkFolder(work).state / exported.run_id)
    try:
        own = next((states.load(parent).get(HOME.name, {}) for parent in exported.parents if states.has(parent)), {})
    except DeclinedError:
        sentence = f"what the site keeps of run {exported.run_id} is damaged; restore it from a copy"
        raise ConfigError(f"work={work}: {sentence}") from None
    if missing := sorted({*exported.at_home} - own.keys()):
        sentence = f"has not what a site keeps of run {exported.run_id} ({missing[0]}, say)"
        raise ConfigError(f"work={work}: {sentence}; give the work folder of a site that took part to the end")
    return own


def predict(
    predictor: Predictor, cases: Sequence[Case], labels: str | None, out: Path, report: Callable[[str], None]
) -> Outcome:
    """Predict each of the `cases`, which are in order of patients and visits, into the folder `out`.

    Masks: PATIENT-VISIT-seg.nii.gz of each case, in the label scheme `labels`; nothing is marked where every image is
    zero. What patients are labelled with: one table, such as grades.csv.
    Raises DataError, same_name, and OSError where nothing can be written. What is wrong with a case is in the outcome.
    """
    twice = [name for name, count in Counter(map(case_name, cases)).items() if count > 1]
    if twice:
        raise DataError("same_name", f"{twice[0]}: two cases have this name; give one another folder or name")
    outcome, label, rows = Outcome(report), predictor.task.label, []
    series = reads_series(predictor.exported.model.name)
    groups = [list(visits) for _, visits in groupby(cases, key=lambda case: case.patient)]
    for group in groups if series else [[case] for case in cases]:
        try:
            if label is not None:
                rows.append(_predict_value(predictor, label, group[0], outcome))
            else:
                assert labels is not None, "masks have a label scheme"
                _predict_masks(predictor, group, labels, out, outcome)
        except DataError as fault:
            outcome.fail(group, str(fault))
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
            device = predictor.device
            cure = "a machine with more memory" if device.type == "cpu" else "device=cpu, or a GPU with more memory"
            outcome.fail(group, f"out of memory on {device}; take {cure}, or a model of a smaller data.patch")
    if label is not None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("patient", "visit", *label.columns, "modalities"), *rows])
        # A name may hold bytes that are no text.
        write_bytes(out / label.table, text.getvalue().encode(errors="backslashreplace"))
    return outcome


def look(case: Case, exported: Exported) -> list[Finding]:
    """What a check says of the images that the model reads; the mask, if there is one, is not looked at."""
    case = replace(case, mask=None)
    inspected = inspect(case, CheckConfig(), draw=False)
    (report,) = judge([case], [inspected], CheckConfig(), exported.data.modalities, None, some=True)
    in_table = TASKS[exported.task].label is not None  # its row has what was there
    return [found for found in report.findings if not (in_table and found.code == "missing_modality")]


def case_name(case: Case) -> str:
    """Name what is written of a case: PATIENT-VISIT, with nothing in it that would lead out of the folder."""
    name = re.sub(r"[^\w.-]", "_", f"{case.patient}-{case.visit}")
    if len(name.encode(errors="replace")) <= LONGEST:
        return name
    return f"{name[: LONGEST // 5]}-{sha256(name.encode(errors='replace')).hexdigest()[:16]}"


def write_mask(labels: npt.NDArray[np.uint8], like: Scan, path: Path) -> None:
    """Write labels (X, Y, Z), RAS, in the orientation of the scan `like` and with its place in space.

    Nothing else of its header is copied: texts in it may name the patient.
    """
    scan = read_image(like.path)
    turned = apply_orientation(labels, ornt_transform(_RAS, io_orientation(scan.affine)))
    kind = nib.Nifti2Image if isinstance(scan.header, nib.Nifti2Header) else nib.Nifti1Image
    header = kind.header_class()
    header.set_data_dtype(np.uint8)
    for name in _SPACE:
        header[name] = scan.header[name]
    header["pixdim"][:4] = scan.header["pixdim"][:4]
    image = kind(np.ascontiguousarray(turned), None, header)
    write_bytes(path, gzip.compress(image.to_bytes(), mtime=0))


def _predict_masks(predictor: Predictor, cases: list[Case], labels: str, out: Path, outcome: Outcome) -> None:
    """Predict visits that the model reads together; those that cannot be read by themselves are left out."""
    data = predictor.exported.data
    try:
        images = prepare_images(cases, data)
    except DataError:
        good = [case for case in cases if _readable(case, predictor, outcome)] if len(cases) > 1 else cases
        if len(good) == len(cases):
            raise
        if good:
            _predict_masks(predictor, good, labels, out, outcome)
        return
    for case, inside, regions in zip(cases, images.inside, _regions(predictor, images), strict=True):
        path, found = out / f"{case_name(case)}-seg.nii.gz", look(case, predictor.exported)
        write_mask(labels_of(regions & inside, labels, data.regions), next(iter(images_of(case, data).values())), path)
        outcome.succeed(case, path.name, found)


def _readable(case: Case, predictor: Predictor, outcome: Outcome) -> bool:
    try:
        prepare_images([case], predictor.exported.data)
    except DataError as fault:
        outcome.fail([case], str(fault))
        return False
    return True


def _regions(predictor: Predictor, images: Images) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield each visit's regions (R, X, Y, Z) on the grid of the scans, RAS; in windows as `samples.whole` has them."""
    data, series = predictor.exported.data, reads_series(predictor.exported.model.name)
    length = data.window if series else 1
    for start in range(0, len(images.array), length):
        arrays = [images.array, images.present] if data.missing == "mask" else [images.array]
        parts = [torch.from_numpy(array[start : start + length]).to(predictor.device) for array in arrays]
        image, *present = [part[None] for part in parts] if series else parts
        logits = predictor.task.logits(predictor.network, (image.float(), *present), data)
        _check(logits, images.first[0])
        for probability in logits.float().sigmoid().cpu().numpy().reshape(-1, *logits.shape[-4:]):
            # Probabilities, not logits: there is no number for the certain background outside the box.
            yield np.stack([images.restored(region) > 0.5 for region in probability])


@torch.no_grad()
def _predict_value(predictor: Predictor, label: Label, case: Case, outcome: Outcome) -> tuple[str, ...]:
    """One visit's line of the label's table."""
    data = predictor.exported.data
    entry = block_entry(case, data)
    image, present = torch.from_numpy(entry.image).float(), torch.from_numpy(entry.present)
    inputs = image.to(predictor.device), present.to(predictor.device)
    logit = predictor.task.logits(predictor.network, inputs, data)
    _check(logit, next(iter(case.images.values())))
    values, found = label.answer(logit), look(case, predictor.exported)
    used = [modality for modality, there in zip(data.modalities, entry.present[0], strict=True) if there]
    outcome.succeed(case, values[0], found)
    return case.patient, case.visit, *values, " ".join(used)


def _check(logits: torch.Tensor, scan: Scan) -> None:
    """A model whose training diverged says NaN, which would pass for an empty mask, or for LGG."""
    if not torch.isfinite(logits).all():
        raise DataError("not_finite", f"{scan}: the model says NaN or infinite; take the model of another round or run")
