"""The ServerApp of a federation across machines, as Flower starts it beside the SuperLink."""

import json
from pathlib import Path

from flwr.app import Context

from server.app import Federation, make_server_app
from shared.config import RunConfig
from shared.parse import ConfigError, parse

NODES = "nodes.json"
"""In a run's folder: which site each of Flower's nodes is, by the key that it was admitted with."""


def _federation(context: Context) -> Federation:
    """Read the run whose folder Flower's run config names; a run that is there goes on."""
    out = Path(str(context.run_config["out"]))
    saved = json.loads((out / "run.json").read_text())
    config = parse(RunConfig, saved["run"])
    if config.hash != saved["config_hash"]:
        raise ConfigError(f"{out}: run.json was changed since the run began; put it back from a copy")
    names = {int(node): str(site) for node, site in json.loads((out / NODES).read_text()).items()}
    return Federation(config=config, out=out, run_id=saved["run_id"], names=names)


app = make_server_app(_federation)
