"""Label schemes: which values of a mask make which region.

Label sets overlap between releases ({0, 1, 2, 3} may be BraTS 2023 or MSD), so a site declares its scheme.
"""

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from gliofed.shared.data.volume import DataError
from gliofed.shared.wording import quantity

# Up to 2022: 1 necrosis and non-enhancing core, 2 edema, 4 enhancing tumour.
_BRATS = {"et": frozenset({4}), "tc": frozenset({1, 4}), "wt": frozenset({1, 2, 4})}
# From 2023: 1 core, 2 edema, 3 enhancing tumour.
_BRATS23 = {"et": frozenset({3}), "tc": frozenset({1, 3}), "wt": frozenset({1, 2, 3})}

LABELS: dict[str, dict[str, frozenset[int]]] = {
    "brats2018": _BRATS,
    "brats2019": _BRATS,
    "brats2020": _BRATS,
    "brats2021": _BRATS,
    "brats2023": _BRATS23,
    "brats2024": {**_BRATS23, "cavity": frozenset({4})},  # the resection cavity is no tumour
    "msd": {"et": frozenset({3}), "tc": frozenset({2, 3}), "wt": frozenset({1, 2, 3})},  # 1 is edema here
    "ucsf_pdgm": _BRATS,
    # DeepBraTumIA: 1 enhancing, 2 necrosis, 3 edema. LUMIERE's tables of radiomics name 1 and 2 the other way round.
    "lumiere": {"et": frozenset({1}), "tc": frozenset({1, 2}), "wt": frozenset({1, 2, 3})},
    "hd_glio": {"et": frozenset({2}), "wt": frozenset({1, 2})},  # 1 does not enhance: edema and core are one
    "mock": {"object": frozenset({1})},
}
"""Scheme -> region -> label values; 0 is background in all."""

ROUNDING = 1e-3
"""Largest distance of a stored label from a whole number: scaling in the header leaves 2.0000005."""


def region_values(scheme: str, regions: Sequence[str]) -> list[frozenset[int]]:
    """Label values of each region.

    Raises DataError: unknown_labels (scheme), unknown_regions.

    >>> region_values("msd", ["et"])
    [frozenset({3})]
    """
    if scheme not in LABELS:
        raise DataError("unknown_labels", f"labels={scheme}: no such label scheme; known are {', '.join(LABELS)}")
    if unknown := [region for region in regions if region not in LABELS[scheme]]:
        raise DataError(
            "unknown_regions",
            f"data.regions={','.join(unknown)}: not in label scheme {scheme}, which has "
            f"{', '.join(LABELS[scheme])}; name only those, or give another scheme",
        )
    return [LABELS[scheme][region] for region in regions]


def schemes_with(values: Collection[float]) -> list[str]:
    """The schemes that have all these labels.

    >>> schemes_with([1, 2, 4])
    ['brats2018', 'brats2019', 'brats2020', 'brats2021', 'brats2024', 'ucsf_pdgm']
    """
    return [name for name in LABELS if _known(name).issuperset(values)]


def regions_of(mask: npt.NDArray[np.generic], scheme: str, regions: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Turn labels (X, Y, Z) into regions (R, X, Y, Z), 0 or 1.

    Raises DataError: label_values (not whole numbers, or outside the scheme), unknown_labels, unknown_regions.
    """
    values = region_values(scheme, regions)
    whole = np.rint(mask)
    there = set(np.unique(whole[whole != 0]).tolist())
    broken = mask[np.abs(mask - whole) > ROUNDING]
    if len(there) == 1 and not schemes_with(there):  # 255, also where scaling left 254.998
        raise DataError(
            "label_values",
            f"mask has {_numbers(there)} and 0 alone, which tells no regions apart, and scheme {scheme} has "
            f"{_numbers(_known(scheme))}; get a mask with labels of the scheme",
        )
    if broken.size:
        has = quantity(broken.size, "voxel that is no whole label", "voxels that are no whole labels")
        raise DataError(
            "label_values",
            f"mask has {has}, such as {broken[0]:.4g}; "
            "it was interpolated or scaled: resample masks with nearest neighbour, and store whole labels",
        )
    if outside := sorted(there - _known(scheme)):
        fitting = schemes_with(there)
        raise DataError(
            "label_values",
            f"mask has labels {_numbers(outside[:10])} but scheme {scheme} has {_numbers(_known(scheme))}; "
            f"{_numbers(sorted(there)[:10])} would fit {' or '.join(fitting) or 'no scheme'}: "
            + ("declare the scheme of this data in `labels`" if fitting else "look at the mask"),
        )
    return np.stack([np.isin(whole, sorted(labels)) for labels in values]).astype(np.uint8)


def labels_of(regions: npt.NDArray[np.generic], scheme: str, names: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Turn regions (R, X, Y, Z), 0 or 1, named `names`, into labels (X, Y, Z): the inverse of `regions_of`.

    A voxel gets the label of the innermost region that it is in: of those with the fewest labels, the one that the
    scheme names first. So ET that was predicted outside WT is ET, and lies in WT from then on. A region's own label is
    one that none of the `names` inside it has and as few regions of the scheme as can be; of several the lowest.
    Raises DataError: unknown_labels, unknown_regions.

    >>> labels_of(np.array([[[[1, 0]]], [[[1, 1]]]]), "brats2020", ["tc", "wt"]).tolist()
    [[[1, 2]]]
    """
    values = region_values(scheme, names)
    order = list(LABELS[scheme])
    innermost_last = sorted(range(len(names)), key=lambda at: (-len(values[at]), -order.index(names[at])))
    labels = np.zeros(regions.shape[1:], np.uint8)
    for at in innermost_last:
        inner = frozenset[int]().union(*(other for other in values if other < values[at]))
        own = (values[at] - inner) or values[at]
        depth = {label: sum(label in region for region in LABELS[scheme].values()) for label in own}
        labels[regions[at] != 0] = min(own, key=lambda label: (depth[label], label))
    return labels


def _known(scheme: str) -> frozenset[int]:
    """All labels of a scheme but background."""
    return frozenset[int]().union(*LABELS[scheme].values())


def _numbers(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in sorted(values))
