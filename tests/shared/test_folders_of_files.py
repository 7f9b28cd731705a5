"""The names of files in the folders that users keep: each stands in one class, and those of before stay."""

import ast
import re
from pathlib import Path

import pytest

import gliofed
from gliofed.client.hospital_folder import HospitalFolder
from gliofed.server.provisioning.federation_folder import FederationFolder
from gliofed.shared.files import Below
from gliofed.shared.run_folder import BaselineFolder, ModelFolder, SimulationFolder
from gliofed.shared.work_folder import CompareFolder, WorkFolder

PACKAGE = Path(gliofed.__file__).parent
KNOWN = {
    WorkFolder: "cohort cohort/manifest.json consent.json patients.lock checks cache trained outbox state ledger "
    "smaller_patch.json site-report.html compare site.log site.old.log",
    CompareFolder: "of.json .lock compare.json scores.csv",
    ModelFolder: "model.json model.safetensors provenance.json",
    BaselineFolder: "model.json model.safetensors provenance.json checkpoints training.json",
    SimulationFolder: "run.json code.fab wanted.json submission.json nodes.json agreed.json server.log history.jsonl "
    "progress.json anew.json checkpoints spool refused model best init plots report.html .lock data sites sites.json "
    "sites.png cohorts.json profiles.json comparison.json baselines baselines/scores.csv slices.json attacks",
    HospitalFolder: "kit.json ca.crt code.fab site.yaml site.key site.key.pub approved.json approved start.lock "
    "state.json problem.json flower flower/tmp flower/apps",
    FederationFolder: "federation.yaml ca ca/ca.crt ca/ca.key server server/link.key code.fab kits sites runs "
    "runs/.lock runs/submitted.json link link/state.json link/link.json link/nginx.conf link/superlink.log "
    "link/state.db link/flower link/flower/apps",
}
"""Written down anew, so that nobody changes a name by chance: a folder of an earlier version would not go on."""


@pytest.mark.parametrize("kind", KNOWN, ids=lambda kind: kind.__name__)
def test_no_file_changes_its_name(kind: type) -> None:
    names = [name for each in reversed(kind.__mro__) for name, value in vars(each).items() if isinstance(value, Below)]
    root = Path("/root")
    found = [str(getattr(kind(root), name).relative_to(root)) for name in names]  # type: ignore[call-arg]
    assert found == KNOWN[kind].split()


def test_no_path_is_put_together_from_a_literal_name() -> None:
    """`folder / "history.jsonl"` anywhere else would be a second place for the name."""
    files = {name for known in KNOWN.values() for name in re.findall(r"[\w.]+\.\w+", known)} - {"model.json"}
    found = []
    files_of_rooms = [path for room in PACKAGE.iterdir() for path in sorted(room.rglob("*.py"))]  # rooms may be links
    for path in files_of_rooms:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant):
                if node.right.value in files:
                    found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {node.right.value}")
    assert files_of_rooms and found == []
