"""History: a line an event."""

from pathlib import Path

from gliofed.server.round.history import History
from gliofed.shared.tasks.means import as_json


def test_a_half_written_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    History(path).append({"event": "start"})
    with path.open("a") as file:
        file.write('{"event":"rou')
    history = History(path)
    before = path.read_bytes()
    assert [event["event"] for event in history.events()] == ["start"]
    assert path.read_bytes() == before  # a reader may look while another process writes
    history.repair()
    history.append({"event": "end"})
    assert [event["event"] for event in history.events()] == ["start", "end"]


def test_metrics_as_json() -> None:
    assert as_json({"loss": float("nan"), "dice": 0.5}) == {"loss": None, "dice": 0.5}
    assert as_json({}) is None
