"""Checks a data folder: reads every file of every case to its end, and says what to mend."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shared.data.cases import Case
from shared.data.labels import LABELS, regions_of
from shared.data.prepare import same_grid
from shared.data.volume import DataError, Scan, Volume, read_volume


@dataclass(frozen=True)
class Finding:
    """One fault of one case."""

    code: str
    sentence: str
    """Names the file, the value and the cure; stays at the site."""


def findings(case: Case, modalities: Sequence[str]) -> Iterator[Finding]:
    """Yield what keeps a case from being trained on."""
    for name in modalities:
        if name not in case.images:
            yield Finding("missing_modality", f"{case.patient} {case.visit}: no {name}; add the file, or leave it out")
    if case.mask is None:
        yield Finding("missing_mask", f"{case.patient} {case.visit}: no mask (…seg.nii.gz), so nothing can be learned")
    first: tuple[Scan, Volume] | None = None
    for scan in [*case.images.values(), *([case.mask] if case.mask else [])]:
        try:
            volume = read_volume(scan)
            if scan == case.mask:
                regions_of(volume.array, case.labels, list(LABELS[case.labels]))
            first = first or (scan, volume)
            same_grid(first, scan, volume)
        except DataError as error:
            yield Finding(error.code, str(error))
