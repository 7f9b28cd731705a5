"""One simulated federation, from its settings to its table."""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from shutil import rmtree
from typing import IO, Any
from uuid import uuid4

from gliofed.client.app import SiteOf
from gliofed.client.round.policy import counts_leave
from gliofed.client.round.training import pick_device
from gliofed.server.report.page.page import write_page
from gliofed.server.report.plots.plots import draw_plots
from gliofed.server.report.plots.sweep import draw_runs
from gliofed.server.report.record import read_record
from gliofed.server.report.table import print_results
from gliofed.server.round.given import Given, read_given
from gliofed.server.round.history import History
from gliofed.server.round.sites import Federation
from gliofed.server.settings import notes_of
from gliofed.shared.checkpoint import check_checkpoint
from gliofed.shared.config import RunConfig
from gliofed.shared.data.volume import DataError
from gliofed.shared.files import absolute, make_writable, write_json
from gliofed.shared.locks import BusyError, lock_file
from gliofed.shared.parse import ConfigError
from gliofed.shared.processes import cores
from gliofed.shared.progress import Bar
from gliofed.shared.run_folder import SimulationFolder
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.sizes import outline_of_request
from gliofed.shared.tasks import TASKS
from gliofed.shared.terminal import plain
from gliofed.shared.versions import versions
from gliofed.simulation.ending import result_sentence, resume_command
from gliofed.simulation.fault_mod import fault_mod
from gliofed.simulation.faults import Fault, parse_faults
from gliofed.simulation.local_engine import run_here
from gliofed.simulation.partition import site_names
from gliofed.simulation.settings import Settings, parse_settings, read_run
from gliofed.simulation.sites import check_test_patients, make_sites, patients_written


class FailedError(Exception):
    """The run had to stop; the sentence says why and how to go on."""


@dataclass(frozen=True)
class Outcome:
    """How it went."""

    status: str
    """done, incomplete or failed."""
    hung: bool
    """Whether a site's thread still runs, so that the process must not wait for its threads."""
    out: Path
    """The run's folder."""
    metric: str
    """The one that the run's task shows first."""
    note: str
    """What must be said of its figures."""
    settings: Settings
    sites: list[SiteConfig]


def simulate(
    values: Mapping[str, Any],
    name: str | None = None,
    now: datetime | None = None,
    words: Sequence[str] | None = None,
) -> Outcome:
    """Run, or resume, what the composed `values` say; `name` tells the runs of a sweep apart, which began at `now`.
    `words` are what the user gave, for whoever repeats the run.

    Raises a UserError, with a sentence for the user, before anything is trained.
    """
    resumes, given = values["resume"] is not None, None
    if resumes:
        out = absolute(str(values["resume"]))
        saved, run, settings = read_run(out, "resume")
        check_checkpoint(SimulationFolder(out).checkpoints, outline_of_request(run, training=False))
        values, run_id = saved["simulation"], str(saved["run_id"])
    else:
        now = now or datetime.now().astimezone()
        out = absolute(str(values["out"] or f"outputs/{now:%Y-%m-%d}/{now:%H-%M-%S}")) / (name or "")
        _refuse_a_run(out)
        given = read_given(values["init"])
        values = {**values, "data": _with_root(values), "init": given and given.sha256}
        run, settings = parse_settings(values)
    names = site_names(settings.sites)
    notes = notes_of(values) + (given.check(run) if given else [])
    if away := [name for name in run.round.expected if name not in names]:
        notes += [f"round.expected: {away[0]} is none of {names[0]} to {names[-1]}, and will be missing"]
    faults = parse_faults(settings.faults, names, run)
    pick_device(settings.device)  # or refuse it, before anything is made
    with _folder(out), only_one(out), _engine(settings):
        if not resumes:  # before cases are written: a run that is killed meanwhile can be resumed
            _refuse_a_run(out)  # again: another process may have been quicker
            run_id = _describe(out, run, values, settings, given, words)
        try:
            with Bar("cases") as progress:
                sites = make_sites(values["data"], run, settings, out, progress.report)
            if settings.baselines:
                check_test_patients(sites, run)
            if run.privacy.test_seed is not None:
                notes.append("privacy.test_seed is set: this run is not private")
            for note in notes:
                print(plain(note), file=sys.stderr, flush=True)
            return _run(run, settings, sites, faults, values["data"], out, run_id)
        except (ConfigError, DataError):
            if not (resumes or SimulationFolder(out).history.exists()):  # nothing began: the folder may be used again
                SimulationFolder(out).description.unlink()
                rmtree(SimulationFolder(out).init, ignore_errors=True)
            raise
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; go on with {resume_command(out)}") from None
        except OSError as error:
            where = f"{error.filename or out}: {error.strerror}"
            raise FailedError(f"{where}; make room, or fix it, then go on with {resume_command(out)}") from None


def _describe(
    out: Path,
    run: RunConfig,
    values: Mapping[str, Any],
    settings: Settings,
    given: Given | None,
    words: Sequence[str] | None,
) -> str:
    """Write what a new run is, and the weights that it was given; return its id."""
    saved = {"run_id": uuid4().hex, "config_hash": run.hash, "versions": versions(), "run": asdict(run)}
    saved |= {} if words is None else {"overrides": list(words)}
    if given:
        given.keep(SimulationFolder(out))
    write_json(SimulationFolder(out).description, saved | {"simulation": {**values, "faults": settings.faults}})
    return str(saved["run_id"])


def agreed_patients(sites: Sequence[SiteConfig], written: Sequence[int], run: RunConfig) -> dict[str, int]:
    """The most patients that count of each site: all it has, of which `written` has how many were made for it.

    Where a noisy number is told, it is rounded up as a hospital would, so that noise is hardly ever cut.
    """
    return {
        site.name: (made if site.patients is None else len(site.patients))
        + (0 if counts_leave(site.policy, run) else math.ceil(4 * site.policy.count_noise))
        for site, made in zip(sites, written, strict=True)
    }


def _run(
    run: RunConfig,
    settings: Settings,
    sites: list[SiteConfig],
    faults: Mapping[str, Fault],
    data: Mapping[str, Any],
    out: Path,
    run_id: str,
) -> Outcome:
    written = [0] * len(sites) if data["source"] == "folder" else patients_written(data, len(sites))
    agreed = agreed_patients(sites, written, run)
    federation = Federation(config=run, out=out, run_id=run_id, agreed=lambda: agreed, page=settings.report.page)
    site_of: SiteOf = lambda context: sites[int(context.node_config["partition-id"])]  # noqa: E731  # its type is named
    mods = [fault_mod(faults, site_of, agreed)] if faults else []
    if settings.engine == "ray":
        from gliofed.simulation.ray_engine import run_on_ray

        run_on_ray(federation, sites, settings, mods)
        hung = False
    else:
        at_once = settings.at_once or sites_at_once(settings.device, settings.threads)
        hung = run_here(federation, sites, at_once, mods)
    events = History(SimulationFolder(out).history).events()
    metric = TASKS[run.task].headline
    print_results(events, metric)
    status = str(events[-1]["status"])
    note = "" if data["source"] == "folder" else "synthetic data"
    outcome = Outcome(status, hung, out, metric, note, settings, sites)
    if settings.baselines and status != "failed":
        from gliofed.simulation.baselines.references import compare_run

        if settings.report.page:
            write_page(out)  # the run has ended, however long its references take
        try:
            compare_run(run, settings, sites, data, out, run_id)
        except FailedError:
            draw(outcome)
            report(outcome)
            raise
    print(f"{status}: {result_sentence(status, events[-1], out, settings.report)}")
    return outcome


def report(outcome: Outcome) -> None:
    """Draw a run's report.html for the last time, with slices of its patients where it may show them."""
    settings, synthetic = outcome.settings.report, bool(outcome.note)
    if not settings.page:
        return
    if settings.slices or (settings.slices is None and synthetic):
        from gliofed.simulation.slices import write_slices

        write_slices(outcome.out, outcome.sites, synthetic)
    write_page(outcome.out)


def draw(outcome: Outcome) -> None:
    """Draw a run's figures, unless report.plots=false."""
    if outcome.settings.report.plots:
        draw_plots(read_record(outcome.out), SimulationFolder(outcome.out).plots)


def draw_together(outcomes: Sequence[Outcome]) -> Path | None:
    """Draw the runs of a sweep together, beside their folders; return where.

    Not with report.plots=false, nor runs of different tasks: their losses do not compare.
    """
    metrics = {outcome.metric for outcome in outcomes}
    if len(metrics) > 1 or not all(outcome.settings.report.plots for outcome in outcomes):
        return None
    runs = {outcome.out.name: History(SimulationFolder(outcome.out).history).events() for outcome in outcomes}
    folder = SimulationFolder(outcomes[0].out.parent).plots
    draw_runs(runs, folder, metrics.pop(), outcomes[0].note)
    return folder


def _refuse_a_run(out: Path) -> None:
    if SimulationFolder(out).description.exists():
        raise ConfigError(f"out={out}: holds a run already; give another folder, or go on with {resume_command(out)}")


@contextmanager
def _folder(out: Path) -> Iterator[None]:
    """Make the folder; where the run could not begin, what was made for it goes, but for folders that hold anything."""
    new = [folder for folder in (out, *out.parents) if not folder.exists()]
    make_writable(out, f"out={out}")
    try:
        yield
    except BusyError:  # the folder is another process's
        raise
    except (ConfigError, DataError):
        with suppress(OSError):
            if new and {*out.iterdir()} == {SimulationFolder(out).lock}:
                SimulationFolder(out).lock.unlink()
            for folder in new:
                folder.rmdir()
        raise


def _with_root(values: Mapping[str, Any]) -> Any:
    """The data's settings with an absolute folder, so that a run can be resumed from elsewhere."""
    data = values["data"]
    if not isinstance(data, Mapping) or data.get("root") is None:
        return data
    return {**data, "root": str(absolute(str(data["root"])))}


def only_one(out: Path) -> IO[str]:
    """Hold the folder `out`; a second process in it would mix its files with ours. Raises BusyError."""
    return lock_file(
        SimulationFolder(out).lock, f"out={out}: another process runs in this folder; wait for it, or give another"
    )


def sites_at_once(device: str, threads: int) -> int:
    """As many sites as the cores hold; on a GPU one after the other, for its memory's sake."""
    if pick_device(device).type == "cuda":
        return 1
    return max(1, cores() // threads)


def _engine(settings: Settings) -> AbstractContextManager[None]:
    """Start what the engine needs, before data are written."""
    if settings.engine != "ray":
        return nullcontext()
    from gliofed.simulation.ray_engine import ray_for  # an extra, and slow to import

    return ray_for(settings)
