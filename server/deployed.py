"""The ServerApp of a federation across machines, as Flower starts it beside the SuperLink."""

import json
import logging
import os
import sys
import threading
from functools import partial
from pathlib import Path

import httpx
from flwr.app import Context

from gliofed.server.app import make_server_app
from gliofed.server.link.runs import FEDERATION, announced
from gliofed.server.round.asking import Federation
from gliofed.server.round.run_keys import open_keys
from gliofed.shared.config import RunConfig
from gliofed.shared.parse import ConfigError, parse


def _federation(context: Context) -> Federation:
    """Read the run that was submitted under the id in Flower's run config; a run that is there goes on."""
    folder = Path(os.environ[FEDERATION])
    run = announced(folder, str(context.run_config["submission"]))
    _say_into(run.files.log)
    logging.getLogger("flwr").addFilter(_in_a_sentence)
    threading.excepthook = _thread_ended
    saved = run.saved()
    config = parse(RunConfig, saved["run"])
    if config.hash != saved["config_hash"]:
        raise ConfigError(f"{run.folder}: run.json was changed since the run began; put it back from a copy")
    names, agreed = partial(_names, run.files.nodes), partial(_agreed, run.files.agreed)
    run_id, keys = saved["run_id"], open_keys(folder)
    return Federation(config=config, out=run.folder, run_id=run_id, names=names, agreed=agreed, lossy=True, keys=keys)


def _names(path: Path) -> dict[int, str]:
    """Which site each node is, by the key that it was admitted with; it is written anew while the run goes on."""
    return {int(node): str(site) for node, site in json.loads(path.read_text()).items()}


def _agreed(path: Path) -> dict[str, int]:
    """The agreed ceiling of each site's number of patients; a site that is not in there has none."""
    return {str(site): int(patients) for site, patients in json.loads(path.read_text()).items()}


def _say_into(log: Path) -> None:
    """Let this process write into the run's own log: Flower gives each run one of its own."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)


def _in_a_sentence(record: logging.LogRecord) -> bool:
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


def _thread_ended(ended: threading.ExceptHookArgs) -> None:
    """The same for Flower's threads, as the one that sends it a copy of the log."""
    if isinstance(ended.exc_value, httpx.HTTPError):
        print(f"Flower has no copy of the last lines of this log: {_first_line(ended.exc_value)}", file=sys.stderr)
    else:
        threading.__excepthook__(ended)


def _first_line(error: httpx.HTTPError) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


app = make_server_app(_federation)
