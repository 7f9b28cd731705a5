"""The page of a run: what must be on it, and what must not."""

import json
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from reported_run import CONFIG, PHANTOMS, Event, absent, compared, counted, measured_at_the_end, record_of, round_of
from small_run import composed

from gliofed.server.report.page.curves import curves, other_metrics
from gliofed.server.report.page.page import SECTIONS, make_page, write_page
from gliofed.server.report.page.tables import gains
from gliofed.shared.page import render
from gliofed.simulation.simulate import report, simulate

HOSTILE = "</script><script>alert(1)</script>"


def written(out: Path, *events: Event, **files: Event) -> Path:
    """A run's folder with this history; further words are files beside, such as comparison."""
    out.mkdir()
    (out / "history.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (out / "run.json").write_text(
        json.dumps({"run": CONFIG, "simulation": PHANTOMS, "overrides": ["seed=1", "out=a b"]})
    )
    for name, content in files.items():
        (out / f"{name}.json").write_text(json.dumps(content))
    return out


def words(page: str) -> str:
    """What a reader sees, without tags."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", re.sub(r"(?s)<(script|style)\b.*?</\1>", " ", page))).split())


def test_every_section_is_there_from_the_first_moment_on(tmp_path: Path) -> None:
    """Before any round, with nothing known of the run, and with all that there can be."""
    lines = {"site-a": counted(0.5), "site-b": counted(0.6)}
    runs = {
        "empty": (),
        "failed": (
            {"event": "round_failed", "round": 1, "seconds": 1.0, "reason": "x", "sites": {"a": absent("late", "x")}},
        ),
        "whole": (
            round_of(1, 0.5, lines),
            round_of(2, 0.6, lines),
            measured_at_the_end(0.6, {"site-a": 0.6}),
            {"event": "end", "status": "done"},
        ),
    }
    for name, events in runs.items():
        page = make_page(written(tmp_path / name, *events))
        assert [id for id in SECTIONS if f'id="{id}"' not in page] == []
    (bare := tmp_path / "bare").mkdir()
    assert "No round is finished" in make_page(bare)


def test_who_did_not_take_part_is_named_with_the_reason(tmp_path: Path) -> None:
    lines = {
        "site-a": counted(0.5),
        "site-b": absent("refused", "not finite"),
        "site-c": absent("missing", "not connected"),
    }
    clipped = counted(0.6, size=19.2, clipped=0.1, share=0.4, share_before=0.9, left_out={"truncated": 2, "bad_crc": 1})
    page = words(make_page(written(tmp_path / "run", round_of(1, 0.5, lines | {"site-d": clipped}))))
    for sentence in (
        "round 1: site-b refused: not finite",
        "round 1: site-c missing: not connected",
        "site-d: met a limit in 1 of 1 round, last: update of 19.2 times the usual size, clipped",
        "2: the file ends too early; 1: the file's content does not fit its checksum",
    ):
        assert sentence in page


def test_what_a_site_says_cannot_become_part_of_the_page(tmp_path: Path) -> None:
    """Names and reasons come from others: they enter texts, attributes, and the JSON of the script."""
    lines = {HOSTILE: counted(0.5), f'"{HOSTILE}': absent("failed", HOSTILE)}
    out = written(tmp_path / "run", round_of(1, 0.5, lines), round_of(2, 0.5, lines))
    page = make_page(out)
    assert "alert(1)" in page and HOSTILE not in page
    assert (
        page.count("<script")
        == page.count("</script>")
        == make_page(
            written(
                tmp_path / "good",
                round_of(1, 0.5, {"a": counted(0.5), "b": absent("failed", "x")}),
                round_of(2, 0.5, {"a": counted(0.5), "b": absent("failed", "x")}),
            )
        ).count("<script")
    )


def test_every_curve_over_patients_says_of_how_many() -> None:
    event = round_of(1, 0.5, {"a": counted(0.5)})
    event["global"]["hd95"] = 3.0
    record = record_of(event)
    charts = [each for each in (*curves(record), *other_metrics(record)) if each and "Training" not in each.title]
    assert len(charts) == 7 and all("n=40" in each.note for each in charts)


def test_what_is_not_known_is_a_dash(tmp_path: Path) -> None:
    """An older history has no number of validation patients, and the page had None in its place."""
    page = words(make_page(written(tmp_path / "run", round_of(1, 0.5, {"a": counted(0.5, None)}))))
    assert "None" not in page and "all (n=not known)" in page and "round n Dice" in page


def test_nothing_is_fetched(tmp_path: Path) -> None:
    page = make_page(written(tmp_path / "run", round_of(1, 0.5, {"a": counted(0.5)})))
    found = set(re.findall(r"(?:https?:)?//[\w.]+", page))
    assert found == {"http://www.w3.org"}, "the name of SVG's namespace, which nobody asks for"
    assert "default-src 'none'" in page


def test_models_that_were_compared_are_a_matrix(tmp_path: Path) -> None:
    events = round_of(2, 0.7, {"site-a": counted(0.8), "site-b": counted(0.7)})
    page = words(make_page(written(tmp_path / "run", events, comparison=compared())))
    assert "site-a alone 0.600 n=10 0.500 n=10 0.550 0.500 to 0.600 n=20" in page
    assert "By grade" in page and "high (n=12) 0.800 0.750 to 0.850" in page
    assert "Gain of each site over its own model" in page


def test_gains_can_be_read_without_pointing(tmp_path: Path) -> None:
    """On paper and with the keyboard, each with its interval and n; '+0.2000.150 to 0.250' stood at the pointer."""
    page = make_page(written(tmp_path / "run", round_of(1, 0.5, {}), comparison=compared()))
    assert "site-b: +0.010 (-0.040 to +0.060) (n=10) site-a: +0.200 (+0.150 to +0.250) (n=10)" in words(page)


def test_a_gain_of_two_patients_is_not_drawn_as_one() -> None:
    """The picture agrees with the first screen."""
    comparison = compared()
    drawn = gains(comparison)
    assert drawn and [row["colour"] for row in drawn["rows"]] == [7, 2]
    comparison["gains"]["site-a"]["patients"] = 2
    drawn = gains(comparison)
    assert drawn and [row["colour"] for row in drawn["rows"]] == [7, 7]


def test_the_test_is_shown_where_nothing_was_compared(tmp_path: Path) -> None:
    events = [round_of(2, 0.7, {"site-a": counted(0.8), "site-b": absent("late", "no answer")})]
    page = words(make_page(written(tmp_path / "run", *events, measured_at_the_end(0.75, {"site-a": 0.75}))))
    assert "last (round 2) 0.750 n=10 - 0.750 n=10" in page


def test_many_sites_are_a_range_and_one_to_pick(tmp_path: Path) -> None:
    lines = {f"site-{number:02d}": counted(0.5 + number / 100, number) for number in range(1, 13)}
    page = make_page(written(tmp_path / "run", round_of(1, 0.5, lines), round_of(2, 0.6, lines)))
    assert "Show one of 12 sites" in page and "<option>site-01</option>" in page
    assert "median site" in words(page) and "n=1 to 12 patients a site" in words(page)


def test_the_command_can_be_pasted_and_leaves_the_folder_out(tmp_path: Path) -> None:
    assert "<pre>gliofed-simulate seed=1</pre>" in make_page(
        written(tmp_path / "run", round_of(1, 0.5, {"a": counted(0.5)}))
    )


def test_the_runs_before_are_in_the_order_of_their_weights(tmp_path: Path) -> None:
    out = written(tmp_path / "run", round_of(1, 0.5, {"a": counted(0.5)}))
    private = {"mechanism": "dp_sgd", "epsilon": 2.5, "test_mode": True}
    second = {"run_id": "2" * 32, "round": 3, "rounds": 4, "sites": 2, "patients": {"training": 21, "validation": None}}
    second |= {"privacy": private, "ended": "2026-01-02", "init_sha256": "a" * 64, "weights_sha256": "b" * 64}
    chain = [{"origin": "file", "weights_sha256": "a" * 64, "note": "no provenance"}, second]
    (out / "model").mkdir()
    (out / "model/provenance.json").write_text(json.dumps(chain))
    page = words(make_page(out))
    first, last = (
        f"file - - - - - not known not known {'a' * 16}",
        f"{'2' * 12} 2026-01-02 3 of 4 2 21 - dp_sgd, epsilon 2.5",
    )
    assert f"{first} {last}, NOT PRIVATE: test mode {'a' * 16} {'b' * 16}" in page


def test_a_fault_ends_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path / "run", {"event": "round", "round": 1})
    write_page(tmp_path / "run")
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "report.html: not drawn: KeyError('sites')" in said


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "run"
    report(simulate(composed("sites=2", "data.patients=6", "data.validation=0.5", f"out={out}"), words=["sites=2"]))
    return out


def test_a_real_run_has_its_figures_and_no_patient(simulated: Path) -> None:
    page = (simulated / "report.html").read_text()
    last = [json.loads(line) for line in (simulated / "history.jsonl").read_text().splitlines()][-2]
    assert f"{last['global']['dice']:.3f} after round 2" in words(page)
    assert (
        "gliofed-simulate sites=2" in page and json.loads((simulated / "run.json").read_text())["config_hash"] in page
    )
    patients = {path.name for path in simulated.glob("data/site-*/*") if path.is_dir()}
    assert len(patients) >= 6 and not [name for name in patients if name in page]


def test_the_template_engine_is_loaded_only_to_draw() -> None:
    loaded = "import sys, gliofed.server.report.page.page; print('jinja2' in sys.modules, 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True).stdout == "False False\n"


WHO_IMPORTS = """
import sys, traceback
class Recorder:
    asked = {}
    def find_spec(self, name, path=None, target=None):
        files = [frame.filename for frame in traceback.extract_stack()[:-1] if "importlib" not in frame.filename]
        if name in ("jinja2", "matplotlib", "pandas"):
            self.asked.setdefault(name, files[-1])
sys.meta_path.insert(0, Recorder())
sys.argv = ["gliofed-simulate", *sys.argv[1:]]
from gliofed.simulation.cli import main
try:
    main()
finally:
    for name, file in Recorder.asked.items():
        print("asked", name, file)
"""


@pytest.mark.slow
def test_a_run_that_draws_nothing_loads_no_library_to_draw_with(tmp_path: Path) -> None:
    """In a process of its own. MONAI, which makes the mock data, loads matplotlib and pandas for itself."""
    words = ["sites=1", "rounds=1", "train.steps=1", "report.page=false", "report.plots=false", f"out={tmp_path}/run"]
    ran = subprocess.run([sys.executable, "-c", WHO_IMPORTS, *words], capture_output=True, text=True)
    asked = [line.split(" ", 2)[1:] for line in ran.stdout.splitlines() if line.startswith("asked ")]
    assert ran.returncode == 0 and (tmp_path / "run/model").is_dir(), ran.stderr
    assert not [(name, file) for name, file in asked if "/monai/" not in file]


def test_a_run_that_draws_nothing_needs_no_template_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)  # whoever imports it now fails
    monkeypatch.setattr(render, "_environment", render._environment.__wrapped__)  # what a test before has made
    out = tmp_path / "run"
    outcome = simulate(composed("sites=1", "rounds=1", "report.page=false", f"out={out}"))
    report(outcome)
    assert not (out / "report.html").exists() and not (out / "slices.json").exists()
    assert "not drawn" not in capsys.readouterr().err
    write_page(out)
    assert "not drawn" in capsys.readouterr().err
