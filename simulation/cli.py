"""gliofed-simulate: a federation on this machine."""

import os
import re
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from shared.hydra_words import sentence
from shared.terminal import one_sentence

if TYPE_CHECKING:
    from simulation.simulate import Outcome

STATUS = {"done": 0, "failed": 1, "incomplete": 3}
FAILED = 1
WRONG_USE = 2
WORST_FIRST = (2, 1, 3)
"""Statuses of a sweep's runs: its own is the first of these that there is."""
INTERRUPTED = 130
BROKEN_PIPE = 141


class _Stop(Exception):
    """One run cannot be, or had to stop: a status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def main() -> None:
    """Run the command; every wrong use is one sentence and status 2."""
    os.environ |= {"HYDRA_FULL_ERROR": "1", "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    one_sentence()
    outcomes: list[Outcome] = []
    statuses: list[int] = []
    started: list[bool] = []
    now = datetime.now().astimezone()

    @hydra.main(version_base="1.3", config_path="pkg://configs", config_name="simulation")
    def job(composed: DictConfig) -> None:
        started.append(True)
        try:
            outcome = _job(composed, now)
            outcomes.extend([outcome] if outcome else [])
            statuses.append(STATUS[outcome.status] if outcome else 0)
        except _Stop as stop:
            statuses.append(stop.status)
            print(f"gliofed-simulate: {stop}", file=sys.stderr, flush=True)  # a sweep goes on with its next run

    sys.argv[1:] = _nested_last(sys.argv[1:])
    try:
        job()
    except (HydraException, OmegaConfBaseException) as error:
        _leave(WRONG_USE, sentence(error, "gliofed-simulate"))
    except (ValueError, TypeError) as error:  # of Hydra, where a group is given a number, say
        if started:
            raise
        _leave(WRONG_USE, sentence(error, "gliofed-simulate"))
    except KeyboardInterrupt as stop:
        print(f"gliofed-simulate: {stop or 'interrupted'}", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)  # sites may be in the middle of a step
    if len(outcomes) > 1:
        _together(outcomes)
    status = next((status for status in WORST_FIRST if status in statuses), 0)
    sys.stdout.flush()
    if any(outcome.hung for outcome in outcomes):
        os._exit(status)  # the thread of a site that hangs would hold the process
    sys.exit(status)


def _nested_last(words: list[str]) -> list[str]:
    """In a sweep, let single settings of a group, as model.iterations=2, wait until the swept group is chosen.

    Hydra first composes a sweep without what is swept, and refuses a setting that the default choice does not have. A
    choice of one is swept as well, and so looked at run by run.
    """
    if not {"-m", "--multirun"} & set(words):
        return words
    setting = re.compile(r"((?:model|data|strategy|train|privacy)\.[\w.]+)=([^,(]+|\[[^()]*\])")
    return [f"{match[1]}=choice({match[2]})" if (match := setting.fullmatch(word)) else word for word in words]


def _job(composed: DictConfig, now: datetime) -> "Outcome | None":
    """Simulate, or attack a run that was simulated, which has no outcome."""
    # Imported here, so that --help and a mistyped key answer at once.
    from shared.data.volume import DataError
    from shared.parse import ConfigError
    from simulation.simulate import FailedError, draw, simulate

    sweep = HydraConfig.get()
    name = _name(sweep.job.num, sweep.overrides.task) if sweep.mode == RunMode.MULTIRUN else None
    if missing := sorted(OmegaConf.missing_keys(composed)):
        raise _Stop(WRONG_USE, f"{', '.join(missing)}: must be given; see gliofed-simulate --help")
    values: dict[str, Any] = OmegaConf.to_container(composed, resolve=True)  # type: ignore[assignment]
    others = [word for word in sweep.overrides.task if not word.startswith("resume=")]
    try:
        if values["resume"] is not None and others:
            raise ConfigError(
                f"resume={values['resume']}: goes alone, since the run keeps its settings; drop {others[0]}"
            )
        if values["attack"] is not None or values["run"] is not None:
            from simulation.attacks import attack  # its methods take seconds to import

            attack(values, sweep.overrides.task)
            return None
        outcome = simulate(values, name, now)
        draw(outcome)
        return outcome
    except (ConfigError, DataError) as error:
        raise _Stop(WRONG_USE, str(error)) from None
    except BrokenPipeError:
        os._exit(BROKEN_PIPE)  # whoever read our output has seen enough
    except FailedError as error:
        raise _Stop(FAILED, str(error)) from None


def _together(outcomes: "list[Outcome]") -> None:
    from simulation.simulate import draw_together

    if folder := draw_together(outcomes):
        print(f"all runs together: {folder}/*.png")


def _name(number: int, overrides: list[str]) -> str:
    """Name one run of a sweep after what was set for it."""
    words = ",".join(word for word in overrides if not word.startswith("out="))
    return f"{number}-" + re.sub(r"[^\w.,=-]", "", words)[:100]


def _leave(status: int, sentence: str) -> NoReturn:
    print(f"gliofed-simulate: {sentence}", file=sys.stderr)
    sys.exit(status)
