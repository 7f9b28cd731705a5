"""What a run was made with."""

import platform
from functools import cache
from importlib import metadata

import gliofed

PACKAGES = ("flwr", "torch", "monai", "nibabel", "numpy")


@cache  # it reads and parses a file of each package
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the result."""
    ours = {"python": platform.python_version(), "gliofed": gliofed.__version__}  # a bundle has no metadata
    return ours | {name: metadata.version(name) for name in PACKAGES}
