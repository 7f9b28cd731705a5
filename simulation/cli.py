"""gliofed-simulate: hospitals train one model together, all on this machine.

usage: gliofed-simulate [key=value ...]

Choices, one of each group; an experiment is a model with its data and settings, which other words override
$choices

Settings, with their defaults; --cfg job shows those of the choices that you give
$settings

Ways to divide the patients of data=folder among the sites, and label schemes of its masks
$partitions
$labels

Engines
$engines

Reference models, trained as well and compared with the federation on test patients: baselines=[NAME,...] data.test=0.2
$baselines

Attacks on a finished run, with that run's settings: attack=NAME run=DIR [attacks.key=value ...]; results go into
DIR/attacks, or out=DIR
$attacks

Flags
  --cfg job                     only show every setting and its value
  -m                            run every combination and draw them together: -m model=unet,clstm_unet3d seed=0,1,2
  --help                        this text

Exit status: 0 done; 1 failed; 2 wrong use; 3 incomplete: a site did not count in some round, the privacy budget was
spent before the last one, or no site could evaluate or test the last model.
"""

import os
import re
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gliofed.shared.terminal import WRONG_USE, UserError, enter, tell

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from gliofed.simulation.simulate import Outcome

# Everything else is imported where it is used, so that Ctrl-C works meanwhile.

COMMAND = "gliofed-simulate"
STATUS = {"done": 0, "failed": 1, "incomplete": 3}
FAILED = 1
WORST_FIRST = (2, 1, 3)
"""Statuses of a sweep's runs: its own is the first of these that there is."""
PATHS = {key: key for key in ("data.root", "out", "resume", "run", "init")}


def main() -> None:
    """Run the command; every wrong use is one sentence and status 2."""
    enter(COMMAND, _run, leave_threads=True)


def _help() -> str:
    from gliofed.shared import help_text
    from gliofed.shared.algorithms.optimizers import SCHEDULES
    from gliofed.shared.codecs import CODECS
    from gliofed.shared.config import PRESETS
    from gliofed.simulation.attacks import ATTACKS
    from gliofed.simulation.baselines import BASELINES
    from gliofed.simulation.engines import ENGINES
    from gliofed.simulation.faults import FAULTS
    from gliofed.simulation.partition import PARTITIONS

    registries = {"codec": [*CODECS], "model.preset": [*PRESETS], "optimizer.schedule": [*SCHEDULES]}
    registries |= {"faults": [*FAULTS]}
    return help_text.help_text(
        __doc__,
        choices=help_text.choices("simulation"),
        settings=help_text.settings("simulation", registries),
        partitions={f"partition={name}": help_text.first_line(each.__doc__) for name, each in PARTITIONS.items()},
        labels=help_text.labels(),
        engines={f"engine={name}": help_text.module_line(module) for name, module in ENGINES.items()},
        baselines={name: help_text.first_line(each.__doc__) for name, each in BASELINES.items()},
        attacks={f"attack={name}": help_text.module_line(module) for name, module in ATTACKS.items()},
    )


def _run() -> int:
    if {"--help", "-h"} & {*sys.argv[1:]}:
        print(_help())
        return 0
    os.environ |= {"HYDRA_FULL_ERROR": "1", "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from gliofed.shared.hydra_words import check_words, quoted, sentence

    outcomes: list[Outcome] = []
    statuses: list[int] = []
    started: list[bool] = []
    now = datetime.now().astimezone()

    @hydra.main(version_base="1.3", config_path="pkg://gliofed.configs", config_name="simulation")
    def job(composed: "DictConfig") -> None:
        started.append(True)
        from gliofed.simulation.simulate import FailedError  # here, so that a mistyped key is answered at once

        try:
            outcome = _job(composed, now)
            outcomes.extend([outcome] if outcome else [])
            statuses.append(STATUS[outcome.status] if outcome else 0)
        except (UserError, FailedError) as error:
            statuses.append(WRONG_USE if isinstance(error, UserError) else FAILED)
            tell(COMMAND, str(error))  # a sweep goes on with its next run

    check_words(sys.argv[1:])
    words = [word if _lists_runs(word) else quoted(word, PATHS) for word in sys.argv[1:]]
    sys.argv[1:] = _nested_last(words) if {"-m", "--multirun"} & {*words} else [*map(_as_list, words)]
    try:
        job()
    except (HydraException, OmegaConfBaseException, ValueError, TypeError) as error:
        # Hydra raises the last two as well, where a group is given a number, say.
        if started and not isinstance(error, (HydraException, OmegaConfBaseException)):
            raise
        tell(COMMAND, sentence(error, COMMAND))
        return WRONG_USE
    if len(outcomes) > 1:
        from gliofed.simulation.simulate import draw_together

        if folder := draw_together(outcomes):
            print(f"all runs together: {folder}")
    status = next((status for status in WORST_FIRST if status in statuses), 0)
    if any(outcome.hung for outcome in outcomes):
        sys.stdout.flush()
        os._exit(status)  # the thread of a site that hangs would hold the process
    return status


def _lists_runs(word: str) -> bool:
    """Whether it gives several runs to compare, as run=[A,B]; else what follows = is the path of one."""
    return word.startswith("run=[") and word.endswith("]") and not Path(word.removeprefix("run=")).exists()


def _as_list(word: str) -> str:
    """Let baselines=pooled,local be the list that it looks like; in a sweep Hydra makes two runs of it.

    >>> _as_list("baselines=pooled,local"), _as_list("baselines=[local]")
    ('baselines=[pooled,local]', 'baselines=[local]')
    """
    return re.sub(r"^baselines=(\w+(?:,\w+)*)$", r"baselines=[\1]", word) if word != "baselines=null" else word


def _nested_last(overrides: list[str]) -> list[str]:
    """In a sweep, let single settings of a group, as model.iterations=2, wait until the swept group is chosen.

    Hydra first composes a sweep without what is swept, and refuses a setting that the default choice does not have. A
    choice of one is swept as well, and so looked at run by run.
    """
    setting = re.compile(r"((?!hydra\.)\w+\.[\w.]+)=([^,(]+|\[[^()]*\])")

    def of_one(key: str, value: str) -> str:
        # choice() takes no null; `++` sets what is not there yet, and a wrong key is refused when the run is read.
        return f"++{key}=null" if value.lower() == "null" else f"{key}=choice({value})"

    return [of_one(*match.groups()) if (match := setting.fullmatch(word)) else word for word in overrides]


def _job(composed: "DictConfig", now: datetime) -> "Outcome | None":
    """Simulate, or attack a run that was simulated, which has no outcome."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from gliofed.shared.parse import ConfigError
    from gliofed.simulation.simulate import draw, report, simulate

    sweep = HydraConfig.get()
    name = _name(sweep.job.num, sweep.overrides.task) if sweep.mode == RunMode.MULTIRUN else None
    if missing := sorted(OmegaConf.missing_keys(composed)):
        raise ConfigError(f"{', '.join(missing)}: must be given; see gliofed-simulate --help")
    values: dict[str, Any] = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]
    others = [word for word in sweep.overrides.task if not word.startswith("resume=")]
    if values["resume"] is not None and others:
        raise ConfigError(f"resume={values['resume']}: nothing may be given beside it; drop {others[0]}")
    if values["data"]["source"] == "folder":
        _refuse_made_up(sweep.overrides.task)
    if values["attack"] is not None or values["run"] is not None:
        from gliofed.simulation.attacks.command import attack  # its methods take seconds to import

        attack(values, sweep.overrides.task)
        return None
    outcome = simulate(values, name, now, _as_typed(composed, sweep.overrides.task))
    draw(outcome)
    report(outcome)
    return outcome


def _refuse_made_up(overrides: list[str]) -> None:
    """Refuse settings of made-up data with data=folder: an experiment brings some, which it leaves aside."""
    from dataclasses import fields

    from gliofed.shared.config import DataConfig
    from gliofed.shared.parse import ConfigError

    has = ["root", "labels", *(field.name for field in fields(DataConfig))]
    for word in overrides:
        group, _, name = word.lstrip("+").partition("=")[0].partition(".")
        if group == "data" and name and name.partition(".")[0] not in has:
            raise ConfigError(f"{word}: data=folder has no such setting; data has {', '.join(has)}")


def _as_typed(composed: "DictConfig", overrides: list[str]) -> list[str]:
    """What was set for this run, without the quotes in which Hydra is given paths."""
    from omegaconf import OmegaConf

    typed = []
    for word in overrides:
        key = word.partition("=")[0]
        path = OmegaConf.select(composed, key) if key in PATHS else None  # None: no path, or null
        typed.append(word if path is None else f"{key}={path}")
    return typed


def _name(number: int, overrides: list[str]) -> str:
    """Name one run of a sweep after what was set for it."""
    named = ",".join(word for word in overrides if word.partition("=")[0] not in PATHS)
    return f"{number}-" + re.sub(r"[^\w.,=-]", "", named)[:100]
