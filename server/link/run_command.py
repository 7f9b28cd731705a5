"""gliofed-server run: submit a run to the hospitals of a federation; gliofed-server start trains it, one at a time.

usage: gliofed-server run [federation=DIR] [name=NAME] [key=value ...]
       gliofed-server run [federation=DIR] resume=NAME

Which run
  federation=DIR                the federation's folder (default: here)
  name=NAME                     name of the new run (default: date and time); its folder is DIR/runs/NAME
  resume=NAME                   continue a run that was stopped or failed; it keeps its settings

Choices, one of each group; what an experiment sets for sites and made-up data is ignored here
$choices

Settings, with their defaults; each hospital sets where its scans are, and their labels
$settings

Flags
  --cfg job                     only show every setting and its value
  --help                        this text

Exit status: 0 submitted; 2 wrong use.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from gliofed.shared.algorithms.optimizers import SCHEDULES
from gliofed.shared.codecs import CODECS
from gliofed.shared.config import PRESETS
from gliofed.shared.files import absolute
from gliofed.shared.help_text import choices, help_text, settings
from gliofed.shared.hydra_words import composed
from gliofed.shared.parse import ConfigError
from gliofed.shared.terminal import command_line, plain

COMMAND = "gliofed-server run"
OWN = ("federation", "name", "resume")
"""Words that say which run; the others are its settings."""
PATHS = {"init": "init"}


def run_command(arguments: Sequence[str]) -> None:
    """Do what the words after `run` ask for. Raises ConfigError."""
    if {"--help", "-h"} & {*arguments}:
        registries = {"codec": [*CODECS], "model.preset": [*PRESETS], "optimizer.schedule": [*SCHEDULES]}
        print(help_text(__doc__, choices=choices("federation"), settings=settings("federation", registries)))
        return
    # Taken out before Hydra reads the others: its grammar has a meaning for the = and , in a folder's name.
    own = dict(word.split("=", 1) for word in arguments if word.split("=", 1)[0] in OWN and "=" in word)
    overrides = [word for word in arguments if word.split("=", 1)[0] not in OWN or "=" not in word]
    folder = absolute(own.get("federation", "."))
    if "resume" in own:
        if others := [*overrides, *(f"name={own['name']}" for _ in range("name" in own))]:
            raise ConfigError(f"resume={own['resume']}: goes alone, since the run keeps its settings; drop {others[0]}")
        print(_resume(folder, own["resume"]))
        return

    if shows := "--cfg" in overrides:
        del overrides[(at := overrides.index("--cfg")) : at + 2]
    if flags := [word for word in overrides if word.startswith("-")]:
        multirun = flags[0] in ("-m", "--multirun")
        wrong = "-m: submit runs one by one" if multirun else f"unrecognized arguments: {flags[0]}"
        raise ConfigError(f"{wrong}; see {COMMAND} --help")
    try:
        values = composed("federation", overrides, PATHS)
    except ConfigError as error:
        raise ConfigError(f"{error}; see {COMMAND} --help") from None
    print(yaml.safe_dump(values, sort_keys=False) if shows else _submit(folder, own.get("name"), values, overrides))


def _submit(folder: Path, name: str | None, values: dict[str, Any], overrides: Sequence[str]) -> str:
    # Imported here, so that --help and a mistyped key answer at once.
    from gliofed.server.link.runs import new_run
    from gliofed.server.provisioning.admit import admitted_keys, read_records
    from gliofed.server.provisioning.federation import open_federation
    from gliofed.server.provisioning.federation_folder import FederationFolder
    from gliofed.server.round.given import read_given
    from gliofed.server.settings import check_groups, notes_of, parse_run
    from gliofed.shared.code import build_code

    federation, (records, damaged) = open_federation(folder), read_records(folder)
    keys, wrong = admitted_keys(folder, records)
    sites, faults = list(keys), damaged | wrong
    if not sites:
        none = f"{folder}: no site is admitted yet; {federation.name} has {', '.join(federation.sites)}"
        raise ConfigError("; ".join(faults.values()) or none)
    check_groups(values, COMMAND)
    for key in ("root", "labels"):
        if any(word.lstrip("+~").startswith(f"data.{key}=") for word in overrides):
            raise ConfigError(f"data.{key}: each hospital's own, and in its site.yaml; leave it out")
    given = read_given(values["init"])
    run = parse_run(values | {"init": given and given.sha256}, sites)
    notes = notes_of(values) + (given.check(run) if given else [])
    if unknown := sorted(set(run.round.expected) - set(sites)):
        why = faults.get(unknown[0], f"{', '.join(sites)} are")
        raise ConfigError(f"round.expected: {unknown[0]} is not admitted; {why}")
    files = FederationFolder(folder)
    code = files.code.read_bytes()
    if code != build_code():
        provision = command_line("gliofed-server", "provision", files.settings)
        cure = f"run {provision}, and let the hospitals approve it"
        raise ConfigError(f"{files.code}: not the code that is installed here; {cure}")
    made = new_run(folder, name or f"{datetime.now().astimezone():%Y-%m-%d-%H-%M-%S}", run, overrides, code, given)
    notes += [f"{fault}; the run does not expect {site}" for site, fault in faults.items()]
    return "\n".join([*map(plain, notes), f"submitted as {made.name}; {_next(folder)}"])


def _resume(folder: Path, name: str) -> str:
    from gliofed.server.link.runs import find_run
    from gliofed.server.provisioning.federation import open_federation
    from gliofed.shared.audit import note_act

    open_federation(folder)
    run = find_run(folder, name)
    state, why = run.state()
    if state in ("waiting", "running") and run.wanted().wanted == "run":
        raise ConfigError(f"resume={name}: it is {state} already")
    if state in ("done", "incomplete"):
        raise ConfigError(f"resume={name}: {why or 'it has trained to its last round'}; submit a new run")
    run.saved()
    note_act(folder, "run_resumed", run=name)
    run.want("run")
    return f"goes on as {name}; {_next(folder)}"


def _next(folder: Path) -> str:
    from gliofed.server.link.online import read_online

    waits = "gliofed-server start does not run, so it waits until then; "
    return f"{waits if read_online(folder) is None else ''}{command_line('gliofed-server', 'status', folder)}"
