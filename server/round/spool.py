"""Replies on disk as they arrive: memory stays flat, and after a crash this is the record of who answered."""

import json
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

from gliofed.shared.codec import CodedUpdate
from gliofed.shared.files import write_bytes, write_json
from gliofed.shared.messages import Reply

KEPT = 5
"""Rounds whose refused replies are kept: a site that is refused in every round must not fill the disk."""


@dataclass(frozen=True, kw_only=True)
class Spooled:
    """One site's reply to one round, its update still on disk."""

    site: str
    node: int
    """Flower's name for the key that the site had then."""
    patients: int
    """As the site says."""
    ceiling: int
    """Most patients that count: agreed when the site was admitted, else what it said when it was asked to prepare."""
    steps: int
    metrics: dict[str, float]
    left_out: dict[str, int]
    epsilon: float | None
    size: int
    """Bytes of the coded update."""
    path: Path
    codec: str
    sha256: str = ""
    """Of the coded update."""

    @property
    def weight(self) -> int:
        """Patients that count."""
        return min(self.patients, self.ceiling)

    def update(self) -> CodedUpdate:
        """Open the update, or raise CodecError."""
        return CodedUpdate(self.path, self.codec)


class Spool:
    """The replies of one round, in `root/round-NNNN`."""

    def __init__(self, root: Path, round: int, codec: str) -> None:
        """Open or make the round's folder."""
        self.folder, self._codec = root / f"round-{round:04d}", codec
        self.folder.mkdir(parents=True, exist_ok=True)

    def add(self, site: str, reply: Reply, ceiling: int, node: int) -> None:
        """Store a reply: the update first, then the JSON that makes it count."""
        write_bytes(self.folder / f"{site}.safetensors", reply.update)
        head = {key: getattr(reply, key) for key in ("patients", "steps", "left_out", "epsilon")}
        # NaN is no JSON; repr keeps every bit of a float.
        metrics = {name: repr(value) for name, value in reply.metrics.items()}
        head |= {"ceiling": ceiling, "node": node, "metrics": metrics, "size": len(reply.update)}
        head["sha256"] = reply.update_sha256
        write_json(self.folder / f"{site}.json", head)

    def replies(self) -> list[Spooled]:
        """Everything stored, in the order of site names: the result must not depend on who answered first."""
        found = []
        for path in sorted(self.folder.glob("*.json"), key=lambda path: path.stem):
            try:
                head = json.loads(path.read_text())
                head["metrics"] = {name: float(value) for name, value in head["metrics"].items()}
                file = path.with_suffix(".safetensors")
                found.append(Spooled(site=path.stem, path=file, codec=self._codec, **head))
            except (ValueError, KeyError, TypeError, AttributeError):
                path.unlink()  # damaged: as if it had not arrived, so that the site is asked again
        return found

    def set_aside(self, reply: Spooled, refused: Path) -> None:
        """Move a refused reply to `refused/round-NNNN`, to be looked at; those of the newest rounds are kept."""
        target = refused / self.folder.name
        target.mkdir(parents=True, exist_ok=True)
        # The JSON first: a reply without it has not arrived, so a round that dies here asks the site again.
        for suffix in (".json", ".safetensors"):
            (self.folder / f"{reply.site}{suffix}").replace(target / f"{reply.site}{suffix}")
        for old in sorted(refused.glob("round-*"))[:-KEPT]:
            rmtree(old)

    def clear(self) -> None:
        """Drop the round's replies, once the model that they made is saved."""
        rmtree(self.folder)
