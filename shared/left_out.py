"""Cases that a site left out, by code: when there are so many that both ends say so, and in which words."""

from collections.abc import Mapping

ERRORS = {
    "unreadable": "the file cannot be opened or decoded",
    "truncated": "the file ends too early",
    "bad_crc": "the file's content does not fit its checksum",
    "empty_file": "the file holds nothing",
    "wrong_format": "the file is not what its name says",
    "non_finite": "voxels are NaN or infinite",
    "not_3d": "the file holds no single volume",
    "missing_modality": "the case lacks an image",
    "missing_mask": "the case lacks a mask",
    "two_files": "the case has two files for one image or mask",
    "no_grade": "the grade is not known",
    "two_grades": "the patient has two grades",
    "no_label": "the value that is to be learned is not known",
    "two_labels": "the patient has two values of what is to be learned",
    "label_values": "the mask has values outside the declared scheme",
    "shape_mismatch": "scans of the case have other sizes or spacings",
    "affine_mismatch": "scans of the case lie in other places",
    "no_spatial_header": "the header does not say where the voxels lie",
    "spacing": "voxels are smaller or larger than allowed",
    "size": "the volume has fewer or more voxels than allowed",
    "split_leak": "a patient is in two of training, validation and test",
    "duplicate": "the case is there twice, under two names",
    "same_image_twice": "two modalities are one image",
    "constant_image": "all voxels have one value",
    "not_understood": "no case has this folder or these files",
}
"""Code -> what it means. A case with one of these is not fit for training; the code, and how many, may leave a site."""
MANY = 5
"""Cases from which it is always said."""


def many(left_out: Mapping[str, int], used: int) -> bool:
    """Whether it is five cases or more, or more than a tenth of them and those that are used.

    >>> many({"label_values": 3, "truncated": 2}, used=1000), many({"truncated": 1}, used=9), many({"truncated": 1}, 8)
    (True, False, True)
    """
    count = sum(left_out.values())
    return count >= MANY or 10 * count > count + used


def in_words(left_out: Mapping[str, int]) -> str:
    """The counts, by code.

    >>> in_words({"truncated": 2, "bad_crc": 1})
    '1 bad_crc, 2 truncated'
    """
    return ", ".join(f"{count} {code}" for code, count in sorted(left_out.items()))


def in_full(left_out: Mapping[str, int]) -> list[str]:
    """The counts with what each code means, the most frequent first.

    >>> in_full({"truncated": 1, "bad_crc": 2, "odd_code": 1})
    ["2: the file's content does not fit its checksum", '1: odd code', '1: the file ends too early']
    """
    order = sorted(left_out.items(), key=lambda each: (-each[1], each[0]))
    return [f"{count}: {ERRORS.get(code, code.replace('_', ' '))}" for code, count in order]
