"""gliofed-client report: a page for the hospital itself, of its part in runs, from its own folder alone."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from gliofed.client.doctor.consent import hold_patients
from gliofed.client.doctor.manifest import Manifest, read_manifest
from gliofed.client.hospital_folder import HospitalFolder
from gliofed.client.link.receipts import reason_of
from gliofed.client.link.site_file import read_site
from gliofed.client.round.ledger import Ledger, read_ledger
from gliofed.shared.accounting import rdp_epsilon
from gliofed.shared.audit import audit_file, events_of
from gliofed.shared.files import absolute, write_bytes
from gliofed.shared.left_out import in_full
from gliofed.shared.page.charts import Chart, Line, chart
from gliofed.shared.page.render import render
from gliofed.shared.parse import ConfigError
from gliofed.shared.run_folder import RunFolder
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.terminal import plain
from gliofed.shared.wording import quantity

SECTIONS = {
    "rounds": "Rounds",
    "left": "What left",
    "scores": "Own metrics",
    "cohort": "Cohort",
    "privacy": "Privacy",
    "slices": "Slices",
}
"""Every section of the page: the name of its place, and its title."""
CHARGES = 200
"""Charges of the ledger for which epsilon is drawn, at most, evenly over all."""

Event = dict[str, Any]


@dataclass(frozen=True)
class Own:
    """What the hospital's folder has."""

    site: SiteConfig
    receipts: list[Event]
    """Of all that left, the oldest first."""
    withdrawn: int
    manifest: Manifest | None
    ledger: Ledger | None

    def of_run(self, run: str, kind: str, part: str | None = None) -> list[Event]:
        """Replies of one kind to one run that did what was asked, each round once: the last. `part`: test, or None."""
        done = [e for e in self.receipts if e["run_id"] == run and e["kind"] == kind and e["status"] == "ok"]
        return [*{event["round"]: event for event in done if event.get("part") == part}.values()]

    @property
    def ceiling(self) -> str:
        """Of epsilon, in words; a work folder alone does not know the site's policy."""
        most = self.site.policy.max_epsilon
        return "not known here" if not self.site.root else "none" if most is None else f"{most:g}"

    @property
    def runs(self) -> list[str]:
        """Ids of the runs that asked, in order."""
        return [*dict.fromkeys(str(event["run_id"]) for event in self.receipts)]


def report_command(folder: Path, model: Path | None, file: Path | None) -> int:
    """Write the page of the hospital's folder, or of a work folder; 0.

    With a `model`, a folder that a run left, slices of the site's own patients are on it. Raises ConfigError: neither
    folder, a damaged log or ledger, or no model there.
    """
    folder = absolute(folder)
    if RunFolder(folder).history.exists():
        page, works = RunFolder(folder).page.name, folder / "sites" / "SITE"
        raise ConfigError(f"{folder}: is a run's folder, which has {page}; give a site's work folder, such as {works}")
    joined = HospitalFolder(folder).settings.exists()
    site = read_site(folder) if joined else SiteConfig(name="", root="", labels="", work=str(folder))
    if not (joined or audit_file(folder).exists()):
        raise ConfigError(
            f"{folder}: no hospital's folder and no work folder that was asked anything; give one of them"
        )
    shown = _slices(site, absolute(model)) if model and joined else None
    if model and not joined:
        raise ConfigError(f"--model {model}: goes with the hospital's folder, whose site.yaml says where scans are")
    path = file or site.folder.page
    if path.is_dir():
        raise ConfigError(f"--out {path}: is a folder; give a file, such as {path / site.folder.page.name}")
    write_bytes(path, make_page(read_own(site), shown).encode(), mode=0o600)
    print(plain(f"written: {path}; it stays at the hospital"))
    return 0


def read_own(site: SiteConfig) -> Own:
    """Read the log, the cohort and the ledger; each is verified. Raises ConfigError."""
    events, work = events_of(site.folder.root), site.folder.root
    counts = Counter(event["event"] for event in events)
    return Own(
        site=site,
        receipts=[event for event in events if event["event"] == "receipt"],
        withdrawn=counts["withdrawn"] - counts["readmitted"],
        manifest=read_manifest(work),
        ledger=read_ledger(site.folder.ledger),
    )


def make_page(own: Own, shown: Event | None = None) -> str:
    """Draw the page, as HTML; nobody's name is on it."""
    name = own.site.name or next((str(event["site"]) for event in reversed(own.receipts)), "this site")
    return render(
        Path(__file__).parent,
        "site_report.html",
        sections=[{"id": id, "title": title} for id, title in SECTIONS.items()],
        titles=SECTIONS,
        name=name,
        summary=summary(own),
        rounds=_rounds(own),
        left=_left(own),
        moved=_moved(own),
        told=sorted({metric for event in own.receipts for metric in event["metrics"]}),
        scores=_scores(own),
        tests=_tests(own),
        cohort=_cohort(own),
        privacy=_privacy(own),
        epsilon=_epsilon(own.ledger) if own.ledger and own.ledger.private else None,
        test_mode=own.ledger is not None and not own.ledger.private,
        slices=shown,
    )


def summary(own: Own) -> list[str]:
    """The page in sentences, each figure with what it counts."""
    if not own.receipts:
        return ["Nothing has left this site: no run has asked it anything yet."]
    trained = sum(len(own.of_run(run, "train")) for run in own.runs)
    sent = sum(record["bytes"] for event in own.receipts for record in event["records"])
    since = f"{datetime.fromisoformat(own.receipts[0]['time']).astimezone():%Y-%m-%d}"
    sentences = [
        f"Since {since} the site has trained in {quantity(trained, 'round')} of {quantity(len(own.runs), 'run')}.",
        f"{quantity(len(own.receipts), 'reply', 'replies')} left it, {sent / 1e6:.1f} MB: updates of a model and "
        "numbers, never a scan. The log that says so is whole.",
    ]
    refused = Counter(str(reason_of(event)) for event in own.receipts if event["status"] != "ok")
    if refused:
        why, count = refused.most_common(1)[0]
        requests = quantity(refused.total(), "request")
        sentences.append(f"It did not do {requests}; the most common reason, {count} of {refused.total()}: {why}.")
    if (left_out := _left_out(own)) and (cases := sum(left_out.values())):
        sentences.append(f"The last run could not use {quantity(cases, 'case')} of the cohort; the reasons are below.")
    if own.ledger and own.ledger.private:
        spent = f"{own.ledger.epsilon():.2f}"
        sentences.append(f"Each patient has spent epsilon {spent}; the site's ceiling: {own.ceiling}.")
    return sentences


def _rounds(own: Own) -> list[list[Any]]:
    """A row a run: when, the rounds trained and measured, and why not."""
    rows = []
    for run in own.runs:
        events = [event for event in own.receipts if event["run_id"] == run]
        why = Counter(str(reason_of(event)) for event in events if event["status"] != "ok")
        times = [datetime.fromisoformat(event["time"]).astimezone() for event in (events[0], events[-1])]
        patients = [event["patients"] for event in own.of_run(run, "train")]
        rows.append(
            [
                run[:12],
                f"{times[0]:%Y-%m-%d %H:%M} to {times[1]:%Y-%m-%d %H:%M}",
                len(patients),
                len(own.of_run(run, "evaluate")),
                patients[-1] if patients else "-",
                "; ".join(f"{count}: {reason}" for reason, count in why.most_common()) or "-",
            ]
        )
    return rows


def _left(own: Own) -> list[list[Any]]:
    """What left, by kind of request."""
    found: dict[str, list[int]] = defaultdict(list)
    for event in own.receipts:
        found[str(event["kind"])].append(sum(record["bytes"] for record in event["records"]))
    return [[kind, len(sizes), f"{sum(sizes) / 1e6:.2f}"] for kind, sizes in found.items()]


def _moved(own: Own) -> list[Chart | None]:
    """Megabytes of each run's updates."""
    return [
        chart(
            f"Megabytes of updates, run {run[:12]}",
            [Line(label="sent", colour=0, values={e["round"]: _bytes(e) / 1e6 for e in own.of_run(run, "train")})],
            low=0.0,
        )
        for run in own.runs
    ]


def _bytes(event: Event) -> int:
    return sum(int(record["bytes"]) for record in event["records"])


def _scores(own: Own) -> list[Chart | None]:
    """What the site told of its own patients; an older version did not note the values."""
    found: list[Chart | None] = []
    for run in own.runs:
        measured = [event for event in own.of_run(run, "evaluate") if event.get("told")]
        names = sorted({name for event in measured for name in event["told"] if not name.endswith(("_low", "_high"))})
        patients = sorted({event["patients"] for event in measured})
        note = f"n={patients[0]}" if len(patients) == 1 else f"n={patients[0]} to {patients[-1]}" if patients else ""
        for name in names:
            values = {e["round"]: e["told"][name] for e in measured if e["told"].get(name) is not None}
            found.append(chart(f"{name}, run {run[:12]}", [Line(label=name, values=values, colour=0)], note=note))
    return found


def _tests(own: Own) -> list[list[Any]]:
    """What the site told of its test patients, who are in no curve: the model's round, a metric, its value, n."""
    return [
        [run[:12], event["round"], name, "-" if value is None else f"{value:.3f}", event["patients"]]
        for run in own.runs
        for event in own.of_run(run, "evaluate", "test")
        for name, value in sorted((event.get("told") or {}).items())
    ]


def _cohort(own: Own) -> list[list[Any]]:
    """Numbers of the frozen cohort, and what the last run left out."""
    entries = own.manifest.entries if own.manifest else []
    rows: list[list[Any]] = [
        ["patients frozen", len({entry.case.patient for entry in entries})],
        ["visits of them", len(entries)],
        ["patients who withdrew", own.withdrawn],
    ]
    return rows + [["left out of the last run", sentence] for sentence in in_full(_left_out(own))]


def _left_out(own: Own) -> dict[str, int]:
    """What the last run could not use, by the last of its replies that tells."""
    opened = [e for e in own.receipts if e["run_id"] == own.runs[-1] and e["kind"] != "evaluate"]
    told = [event["left_out"] for event in opened if event["left_out"] or event["status"] == "ok"]
    return dict(told[-1]) if told else {}


def _privacy(own: Own) -> list[list[Any]]:
    if own.ledger is None or not own.ledger.charges:
        return []
    spent = f"{own.ledger.epsilon():.3f}" if own.ledger.private else "none holds"
    return [
        ["epsilon of each patient", spent],
        ["delta", f"{own.ledger.delta:.3g}"],
        ["ceiling, policy.max_epsilon", own.ceiling],
        ["charges", len(own.ledger.charges)],
    ]


def _epsilon(ledger: Ledger) -> Chart | None:
    """Epsilon after each charge."""
    charges = ledger.charges
    places = range(1, len(charges) + 1, max(1, -(-len(charges) // CHARGES)))
    spent = {at: rdp_epsilon(_spent(charges[:at]), ledger.delta) for at in {*places, len(charges)} if at}
    line = Line(label="epsilon", values=spent, colour=3)
    return chart("Epsilon of each patient, charge by charge", [line], across="charge", low=0.0)


def _spent(charges: Sequence[Any]) -> list[tuple[float, float, int]]:
    steps: Counter[tuple[float, float]] = Counter()
    for charge in charges:
        steps[(charge.sigma, charge.rate)] += charge.steps
    return [(sigma, rate, count) for (sigma, rate), count in steps.items()]


def _slices(site: SiteConfig, model: Path) -> Event:
    """Slices of the site's own patients, of a model that a run left. Raises ConfigError without a frozen cohort."""
    if not site.folder.manifest.exists():  # to open it would freeze it, and a page changes nothing
        cure = "freeze its cohort with gliofed-client check, or let it take part in a run"
        raise ConfigError(f"--model {model}: this hospital has no patients to show yet; {cure}")
    # Imported here: PyTorch takes seconds to load, and the page without a model needs none.
    from gliofed.client.prediction.predict import load
    from gliofed.client.prediction.slices import legend, slices
    from gliofed.client.round.training import pick_device
    from gliofed.shared.exported import find_export, read_export

    export = find_export(model)
    predictor = load(export, read_export(export), pick_device(site.device), Path(site.work))
    with hold_patients(Path(site.work)):
        found = slices(predictor, [site])
    return {"note": f"These are PATIENTS of this hospital. {legend(predictor)}", "slices": found}
