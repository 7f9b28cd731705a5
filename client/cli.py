"""gliofed-client: the hospital's command."""

import sys
from typing import Any, NoReturn

from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from client.overrides import quoted

WRONG_USE = 2
PATHS = {key: key for key in ("data.root", "work", "out")}
INTERRUPTED = 130
HELP = """gliofed-client: one hospital.

usage: gliofed-client check data.root=DIR data.labels=SCHEME [key=value ...]
       gliofed-client predict model=DIR data.root=DIR [data.labels=SCHEME] [key=value ...]
       gliofed-client ledger WORK [--json]

  check    read every scan to its end and say what to mend; status 0 without errors, 1 with
  predict  write a mask, or the grade, of every case; status 0 for all, 1 where one could not be predicted
  ledger   show what each patient was charged for in private runs, also while one trains; status 2 without a ledger,
           or where it is damaged

SCHEME is what the masks' values mean: brats2018, brats2019, brats2020, brats2021, brats2023, brats2024, msd,
ucsf_pdgm, lumiere, hd_glio.

Settings of check
  data.modalities=[flair,t1,t1ce,t2]   images that a case must have
  task=segmentation|grading            grading needs grades and no masks
  check.spacing=[0.2,10]               shortest and longest voxel edge, mm; see configs/check.yaml for the others
  work=DIR                             the site's work folder: freeze the cohort there and prepare its scans
  workers=N                            processes; else one for each core
  out=DIR                              where check.json and check.html go; else outputs/DATE/TIME

Settings of predict
  model=DIR                            the model/ that a run leaves, or the run's folder
  data.root=DIR                        folder of the scans, or of one case; masks are not needed
  data.labels=SCHEME                   of the masks that are written; a model that grades needs none
  out=DIR                              new or empty folder for the results; else outputs/DATE/TIME
  device=auto|cpu|cuda:N               where to compute
  model.iterations=K                   refinements of lstm_unet

Words of ledger
  WORK                                 the site's work folder, or the ledger's own
  --json                               one object: delta, epsilon_rdp, epsilon_prv, private, charges
"""


def main() -> None:
    """Run the subcommand that the first word names."""
    command, *words = sys.argv[1:] or ["--help"]
    if command in ("--help", "-h") or "--help" in words:
        print(HELP)
    elif command == "check":
        sys.exit(_check(words))
    elif command == "predict":
        from client.predict_command import predict_command

        sys.exit(predict_command(words))
    elif command == "ledger":
        from client.ledger_command import ledger_command

        sys.exit(ledger_command(words))
    else:
        _wrong(f"no command {command!r}; there are: check, predict, ledger")


def _check(overrides: list[str]) -> int:
    values = _composed("check", overrides)
    # Imported here, so that a mistyped key is answered at once.
    from client.check_command import check
    from shared.data.volume import DataError
    from shared.parse import ConfigError

    try:
        return check(values)
    except (ConfigError, DataError) as error:
        _wrong(str(error))
    except OSError as error:  # a full disk, say
        _wrong(f"{error.filename or 'out or work'}: {error.strerror}; make room or mend it, then start again")
    except KeyboardInterrupt:
        print("gliofed-client: interrupted", file=sys.stderr)
        return INTERRUPTED


def _composed(name: str, overrides: list[str]) -> dict[str, Any]:
    """The settings of configs/NAME.yaml with what the command line overrides."""
    try:
        with initialize_config_module("configs", version_base="1.3"):
            config = compose(name, [quoted(word, PATHS) for word in overrides])
            if missing := sorted(OmegaConf.missing_keys(config)):
                _wrong(f"{', '.join(missing)}: must be given")
            values: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    except (HydraException, OmegaConfBaseException) as error:
        _wrong(" ".join(str(error).split())[:300])
    except (ValueError, TypeError) as error:  # of Hydra, where a group is given a number, say
        _wrong(" ".join(str(error).split())[:300])
    return values


def _wrong(sentence: str) -> NoReturn:
    print(f"gliofed-client: {sentence}; see gliofed-client --help", file=sys.stderr)
    sys.exit(WRONG_USE)
