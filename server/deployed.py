"""The ServerApp of a federation across machines, as Flower starts it beside the SuperLink."""

import json
import logging
import os
import sys
import threading
from pathlib import Path

import httpx
from flwr.app import Context

from gliofed.server.app import make_server_app
from gliofed.server.link.runs import FEDERATION, announced
from gliofed.server.round.run_keys import open_keys
from gliofed.server.round.sites import Federation
from gliofed.shared.config import RunConfig
from gliofed.shared.parse import ConfigError, parse


def _federation(context: Context) -> Federation:
    """Read the run that was submitted under the id in Flower's run config; a run that is there goes on."""
    folder = Path(os.environ[FEDERATION])
    run = announced(folder, str(context.run_config["submission"]))
    _redirect_output(run.files.log)
    logging.getLogger("flwr").addFilter(_drop_traceback)
    threading.excepthook = _report_thread_end
    saved = run.saved()
    config = parse(RunConfig, saved["run"])
    if config.hash != saved["config_hash"]:
        raise ConfigError(f"{run.folder}: run.json was changed since the run began; put it back from a copy")
    return Federation(
        config=config,
        out=run.folder,
        run_id=saved["run_id"],
        # `start` writes both anew while the run goes on.
        names=lambda: {int(node): site for node, site in json.loads(run.files.nodes.read_text()).items()},
        agreed=lambda: dict(json.loads(run.files.agreed.read_text())),
        lossy=True,
        keys=open_keys(folder),
    )


def _redirect_output(log: Path) -> None:
    """Let this process write into the run's own log: Flower gives each run one of its own."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)


def _drop_traceback(record: logging.LogRecord) -> bool:
    """Let Flower log without a traceback what is no fault of the code: a SuperLink that ended, or a damaged file."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, httpx.HTTPError):
        record.msg = f"the SuperLink ended, or this run did there ({_first_line(error)}); start submits what is wanted"
    elif isinstance(error, ConfigError):
        record.msg = str(error)
    else:
        return True
    record.args, record.exc_info = (), None
    return True


def _report_thread_end(ended: threading.ExceptHookArgs) -> None:
    """The same for Flower's threads, as the one that sends it a copy of the log."""
    if isinstance(ended.exc_value, httpx.HTTPError):
        print(f"Flower has no copy of the last lines of this log: {_first_line(ended.exc_value)}", file=sys.stderr)
    else:
        threading.__excepthook__(ended)


def _first_line(error: httpx.HTTPError) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


app = make_server_app(_federation)
