"""The code that a federation proposes: our packages as one Flower app bundle (FAB), approved by its hash."""

import hashlib
from pathlib import Path

import gliofed
from gliofed.shared.archive import read_zip
from gliofed.shared.parse import ConfigError

PACKAGES = ("client", "configs", "server", "shared")
"""Of gliofed, what a federation runs; simulation is for one machine."""
SUFFIXES = (".py", ".yaml")
"""Of what is taken from a package: never data, caches or what an editor left."""
LIMIT = 64 * 2**20
"""Most bytes of a bundle when unpacked."""
MANIFEST = ".info/CONTENT"
PYPROJECT = """[project]
name = "gliofed"
version = "{version}"

[tool.flwr.app]
publisher = "gliofed"

[tool.flwr.app.components]
serverapp = "gliofed.server.deployed:app"
clientapp = "gliofed.client.deployed:app"

[tool.flwr.app.config]
submission = ""
"""


def build_code() -> bytes:
    """Bundle the packages that are installed here; the same files give the same bytes.

    Raises ConfigError where they are more than Flower takes, or it leaves one out.
    """
    # Imported here, for it takes a second.
    from flwr.cli.build import build_fab_from_files

    files = {"pyproject.toml": PYPROJECT.format(version=gliofed.__version__).encode(), **_installed()}
    try:
        bundle, _ = build_fab_from_files(files)
    except ValueError as error:
        raise ConfigError(f"the code: {error}") from None
    # Flower leaves files out by their names, such as test_*.py, and says nothing.
    if lost := sorted(files.keys() - files_of(bundle).keys()):
        raise ConfigError(
            f"the code: Flower leaves out {', '.join(lost)}; remove or rename it where gliofed is installed"
        )
    return bundle


def files_of(fab: bytes) -> dict[str, bytes]:
    """Unpack a bundle in memory: its files by path, without Flower's manifest.

    Raises ConfigError where it is no bundle, or where the manifest does not name exactly these files: Flower installs
    also a file that the manifest leaves out.
    """
    files = read_zip(fab, "the code", LIMIT)
    manifest = files.pop(MANIFEST, b"").decode(errors="replace")
    there = {f"{path},{hashlib.sha256(content).hexdigest()},{len(content) * 8}" for path, content in files.items()}
    if set(manifest.splitlines()) != there or "pyproject.toml" not in files:
        raise ConfigError("the code: no Flower app bundle, or an altered one; ask for a new one")
    return files


def _installed() -> dict[str, bytes]:
    """Read our packages from wherever Python imports them: a checkout or a wheel."""
    root = Path(gliofed.__file__).parent
    files = {"gliofed/__init__.py": (root / "__init__.py").read_bytes()}
    for path in (path for package in PACKAGES for path in (root / package).rglob("*")):
        inside = path.relative_to(root)
        hidden = any(part.startswith(".") for part in inside.parts)  # of an editor or a notebook
        if path.suffix in SUFFIXES and path.is_file() and not hidden:
            files[f"gliofed/{inside.as_posix()}"] = path.read_bytes()
    return files
