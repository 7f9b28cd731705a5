"""What a run was made with."""

import platform
from functools import cache
from importlib import metadata

import gliofed

PACKAGES = ("flwr", "torch", "monai", "nibabel", "numpy")


_version = cache(metadata.version)  # reads and parses a file of the package


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the result."""
    ours = {"python": platform.python_version(), "gliofed": gliofed.__version__}  # a bundle has no metadata
    return ours | {name: _version(name) for name in PACKAGES}
