"""The composed settings, sorted and checked before anything is made."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from gliofed.server.settings import check_groups, parse_run
from gliofed.shared.config import MOST_SITES, RunConfig
from gliofed.shared.parse import ConfigError, Name, Positive, Strict, key_of, matching, parse
from gliofed.shared.run_folder import SimulationFolder
from gliofed.shared.site_config import Device, PolicyConfig, Workers
from gliofed.shared.wording import quantity
from gliofed.simulation.baselines import BASELINES
from gliofed.simulation.engines import ENGINES
from gliofed.simulation.partition import number_of_sites, site_names

_ADDRESS = matching(r"auto|[\w.-]+:\d{1,5}", "must be auto or HOST:PORT, as 10.0.0.1:6379")


@dataclass(frozen=True, kw_only=True)
class RaySettings(Strict):
    """Of engine=ray."""

    address: Annotated[str, _ADDRESS] | None = None
    """Of a cluster that is there, which is joined; auto: the one that RAY_ADDRESS or this machine names. None: Ray is
    started on this machine."""


@dataclass(frozen=True, kw_only=True)
class ReportSettings(Strict):
    """What is written for people."""

    page: bool = True
    """report.html, drawn anew after every round."""
    plots: bool = True
    """plots/, at the end."""
    slices: bool | None = None
    """Whether the page shows slices of scans. None: of made-up data only."""


@dataclass(frozen=True, kw_only=True)
class Settings(Strict):
    """What a simulation has beside its run and its data."""

    sites: Annotated[int, Field(gt=0, le=MOST_SITES)]
    engine: Annotated[str, key_of(ENGINES)]
    device: Device
    threads: Positive
    workers: Workers | None = None
    at_once: Positive | None
    faults: dict[str, str]
    policy: PolicyConfig
    """What every site accepts."""
    policies: dict[str, PolicyConfig]
    """What a site accepts that has a word of its own."""
    lacking: dict[str, tuple[Name, ...]] = field(default_factory=dict)
    """Site -> modalities that its cases are left without."""
    partition: str = "iid"
    """How data=folder is dealt to the sites: a key of `gliofed.simulation.partition.PARTITIONS`."""
    partition_alpha: Annotated[float, Field(gt=0, le=1e6)] = 0.5
    """Of dirichlet: small is a strong skew, large is none."""
    baselines: tuple[Annotated[str, key_of(BASELINES)], ...] = ()
    """Reference models that are trained as well: keys of `gliofed.simulation.baselines.BASELINES`."""
    ray: RaySettings = field(default_factory=RaySettings)
    report: ReportSettings = field(default_factory=ReportSettings)

    def __post_init__(self) -> None:
        """Refuse what would have no effect."""
        if self.ray.address is not None and self.engine != "ray":
            raise ConfigError(
                f"ray.address={self.ray.address}: with engine={self.engine}; give engine=ray as well, or leave it out"
            )


def parse_settings(values: Mapping[str, Any]) -> tuple[RunConfig, Settings]:
    """Sort the composed settings into the run's and the simulation's; try out what only building can tell."""
    check_groups(values, "gliofed-simulate")
    rest = {field.name: values[field.name] for field in fields(Settings) if field.name in values}
    rest["sites"] = _sites(values)
    if not isinstance(values["faults"] or {}, Mapping):
        raise ConfigError(f"faults={values['faults']}: must be sites with their faults, as in faults={{site-2:nan}}")
    rest["faults"] = {site: str(fault) for site, fault in (values["faults"] or {}).items()}  # Hydra reads nan, inf
    rest["baselines"] = values.get("baselines") or ()
    rest["policy"] = values.get("policy") or {}
    rest["policies"] = _policies(rest["policy"], values.get("policies"))
    rest["lacking"] = values.get("lacking") or {}
    settings = parse(Settings, rest)
    names = site_names(settings.sites)
    for key, of in (("policies", settings.policies), ("lacking", settings.lacking)):
        if unknown := sorted(of.keys() - set(names)):
            raise ConfigError(f"{key}: {unknown[0]} is no site; they are {names[0]} to {names[-1]}")
    run = parse_run(values, names)
    for site, gone in settings.lacking.items():
        if odd := sorted(set(gone) - set(run.data.modalities)):
            raise ConfigError(f"lacking.{site}: {odd[0]} is none of data.modalities={','.join(run.data.modalities)}")
        if not set(run.data.modalities) - set(gone):
            raise ConfigError(f"lacking.{site}=[{','.join(gone)}]: leaves its cases no image; leave one in")
    if settings.baselines and run.data.test is None:
        raise ConfigError(
            f"baselines=[{','.join(settings.baselines)}]: models are compared on test patients, and there "
            "are none; give data.test=0.2 as well"
        )
    return run, settings


def read_run(folder: Path, key: str) -> tuple[dict[str, Any], RunConfig, Settings]:
    """Read run.json of a run: its id, hash and composed settings as they were saved, and what these are.

    Raises ConfigError, with the setting `key` that named the folder, where it is missing, damaged or changed.
    """
    file, cure = SimulationFolder(folder).description, "put it back from a copy, or start a new run"
    damaged = ConfigError(f"{key}={folder}: run.json is damaged; {cure}")
    if not file.exists():
        raise ConfigError(f"{key}={folder}: no run.json there; give the folder of a gliofed-simulate run")
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
        saved = {key: saved[key] for key in ("run_id", "config_hash", "simulation")}
    except (ValueError, KeyError, TypeError):  # who may not read it hears that
        raise damaged from None
    try:
        run, settings = parse_settings(saved["simulation"])
    except (KeyError, TypeError, AttributeError):
        raise damaged from None
    if run.hash != saved["config_hash"]:
        raise ConfigError(f"{key}={folder}: run.json was changed since the run began; {cure}")
    return saved, run, settings


def _policies(policy: Any, policies: Any) -> Any:
    """Each named site's policy: that of all, with its own words in it."""
    if policies is not None and not isinstance(policies, Mapping):
        raise ConfigError(f"policies={policies}: must be sites with a policy, as in {{site-2:{{max_epsilon:2}}}}")
    if not isinstance(policy, Mapping):
        raise ConfigError(f"policy={policy}: must be a group of settings; see gliofed-simulate --cfg job")
    for site, own in (policies or {}).items():
        if not isinstance(own, Mapping):
            raise ConfigError(f"policies.{site}={own}: must be what it accepts, as in {{site-2:{{max_epsilon:2}}}}")
    return {site: {**policy, **own} for site, own in (policies or {}).items()}


def _sites(values: Mapping[str, Any]) -> Any:
    """How many sites there will be; what is no number is left to the parser."""
    partition, sites, source = str(values.get("partition", "iid")), values["sites"], values["data"].get("source")
    if partition != "iid" and source != "folder":
        raise ConfigError(
            f"partition={partition}: deals a folder's patients to sites, and data={source} is written for each site; "
            "use data=folder, or leave partition out"
        )
    if source != "folder" and isinstance(patients := values["data"].get("patients"), list | tuple):
        if not patients:
            raise ConfigError("data.patients=[]: names no site; give each its number, as [160,12,4]")
        if sites not in (None, len(patients)):
            raise ConfigError(
                f"data.patients={patients}: numbers of {quantity(len(patients), 'site')}, and sites={sites}; give "
                "sites=null, or each site a number"
            )
        sites = len(patients)
    return number_of_sites(partition, sites) if sites is None or type(sites) is int else sites
