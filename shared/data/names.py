"""What names of image files tell: the modality, whose it is, and its format."""

import re
from dataclasses import dataclass

MASK = "mask"
"""Stands for the mask where modalities are named."""
MODALITIES = {
    **dict.fromkeys(("t1", "t1w", "t1n"), "t1"),
    **dict.fromkeys(("t1ce", "t1c", "t1gd", "ct1"), "t1ce"),
    **dict.fromkeys(("t2", "t2w"), "t2"),
    **dict.fromkeys(("flair", "fla", "t2f", "t2flair"), "flair"),
}
"""Names of modalities in data sets, in small letters without separators -> canonical ones."""
SEPARATORS = ("-", "_", ".", " ")
"""Between whose a file is and its modality."""
_MASKS = ("seg", "segmentation", "tumor_segmentation")

# T2_flair is one word: the shortest prefix is taken, so that FLAIR is not the modality of somebody called ID_T2.
_WORDS = [re.sub(r"^(t[12])(?=.)", r"\1[-_ ]?", name) for name in MODALITIES] + [*_MASKS]
_ENDS_IN_A_WORD = re.compile(rf"(?:(.*?)([-_. ]))??({'|'.join(_WORDS)})", re.IGNORECASE)
# A browser puts (1) before the last ending, a file manager before the first.
_COPY = r"(?: ?\(\d+\)| - copy(?: \(\d+\))?| copy(?: \d+)?)"
_NIFTI = re.compile(rf"(.+?){_COPY}?\.nii{_COPY}?(?:\.gz)?", re.IGNORECASE)

_CURES = {
    **dict.fromkeys((".dcm", ".dicom", ".ima", ".par", ".rec"), "convert DICOM with dcm2niix"),
    **dict.fromkeys((".mha", ".mhd", ".nrrd", ".nhdr"), "save MetaImage or NRRD as .nii.gz with 3D Slicer"),
    **dict.fromkeys((".hdr", ".img"), "export .hdr and .img anew: Analyze does not tell left from right"),
    **dict.fromkeys((".mgz", ".mgh"), "convert MGH with nib-convert, which comes with nibabel"),
    ".mnc": "convert MINC with mnc2nii",
    ".mif": "convert MIF with mrconvert",
    **dict.fromkeys((".brik", ".head"), "convert AFNI with 3dAFNItoNIFTI"),
    **dict.fromkeys(
        (".zip", ".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".7z", ".rar", ".gz", ".bz2", ".xz", ".zst"),
        "unpack the archive, or move it out if that is done",
    ),
}
# Scanners and archives write DICOM without an ending: IM0001, or the series' number. README is none.
_DICOM = re.compile(r"dicomdir|[^.]*\d[^.]*|.*\.\d+", re.IGNORECASE)
_MAY_BE_DICOM = "if it is DICOM, convert it with dcm2niix; if it is no scan, give its name an ending, such as .txt"


@dataclass(frozen=True)
class ImageName:
    """The name of a NIfTI file that ends in a modality: BraTS-GLI-00001-000-t2W (1).nii.gz."""

    prefix: str
    """Whose it is: BraTS-GLI-00001-000; empty where nothing stands before the modality."""
    separator: str
    what: str
    """A canonical modality, or MASK."""


def stem(name: str) -> str | None:
    """The name of a NIfTI file without ending and mark of a copy; None for other files.

    >>> [stem(name) for name in ("a.NII.GZ", "a (1).nii.gz", "a.nii (1).gz", "a.nii", "a.mha", "a.nii.gz.part")]
    ['a', 'a', 'a', 'a', None, None]
    """
    match = _NIFTI.fullmatch(name)
    return match[1] if match else None


def image_name(name: str) -> ImageName | None:
    """Read the name of a NIfTI file; None where it ends in no modality.

    >>> image_name("UCSF-PDGM-0004_T2_FLAIR.nii")
    ImageName(prefix='UCSF-PDGM-0004', separator='_', what='flair')
    """
    match = _ENDS_IN_A_WORD.fullmatch(stem(name) or "")
    if match is None:
        return None
    what = MASK if match[3].lower() in _MASKS else modality_name(match[3])
    return ImageName(match[1] or "", match[2] or "", what)


def modality_name(name: str) -> str:
    """The canonical name of a modality; one that is unknown keeps its own, in small letters.

    >>> [modality_name(name) for name in ("T1gd", "T2-FLAIR", "t1n", "ADC")]
    ['t1ce', 'flair', 't1', 'adc']
    """
    return MODALITIES.get(re.sub(r"[-_ ]", "", name.lower()), name.lower())


def is_image(name: str) -> bool:
    """Whether a file may hold an image, as its name tells, in whatever format.

    >>> [is_image(name) for name in ("a.nii.gz.part", "a.nrrd", "a.tar.gz", "IM0001", "1.2.840", "README", "a.csv.gz")]
    [True, True, True, True, True, False, False]
    """
    return ".nii" in name.lower() or conversion(name) is not None


def conversion(name: str) -> str | None:
    """What makes NIfTI of a file, or of what is in an archive; None where it is NIfTI, or no image."""
    if stem(name):
        return None
    ending = re.search(r"\.[a-z0-9]+(?=(\.gz)?$)", name.lower())
    if ending and ending[0] in _CURES:
        return _CURES[ending[0]]
    return _MAY_BE_DICOM if _DICOM.fullmatch(name) else None
