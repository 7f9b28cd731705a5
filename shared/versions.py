"""What a run was made with."""

import platform
from importlib.metadata import version

PACKAGES = ("gliofed", "flwr", "torch", "monai", "nibabel", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the result."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
