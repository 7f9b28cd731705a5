"""Norms that stay at home: where that pays, and what a model without norms is good for."""

import json
from pathlib import Path
from statistics import fmean

import pytest
from inverted_site import BatchUNet, worst
from plain_federation import model_of
from safetensors.torch import load_file
from small_run import composed

from gliofed.client.prediction.predict import load
from gliofed.client.round.training import pick_device
from gliofed.server.round.model import initial_model
from gliofed.shared.algorithms.groups import parted
from gliofed.shared.codec import travelling
from gliofed.shared.exported import find_export, read_export
from gliofed.shared.models import MODELS
from gliofed.shared.parse import ConfigError
from gliofed.simulation.settings import parse_settings
from gliofed.simulation.simulate import simulate

BATCH = "model.name=batch_unet"


@pytest.mark.slow
def test_it_wins_with_batchnorm_where_contrasts_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The running statistics of two sites with opposite contrasts have a mean that is of neither: one finds little.

    With twice the steps of the table in docs/methods.md and over the last three rounds: a single round's Dice jumps,
    and is another on another kind of processor.
    """
    monkeypatch.setitem(MODELS, "batch_unet", BatchUNet)
    plain, own = (
        fmean(
            worst(
                tmp_path / f"data-{seed}",
                tmp_path / f"{name}-{seed}",
                *(BATCH, "train.steps=16", f"algorithm={name}", f"seed={seed}"),
            )
            for seed in (0, 1, 2)
        )
        for name in ("fedavg", "fedbn")
    )
    assert own > 0.6 > 0.3 > plain


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fedbn") / "out"
    simulate(composed("algorithm=fedbn", "sites=2", "round.evaluate_every=0", f"out={out}"))
    return out


def test_the_model_says_what_it_lacks(out: Path) -> None:
    run, _ = parse_settings(composed("algorithm=fedbn", "sites=2"))
    everything, told = travelling(initial_model(run)), json.loads((out / "model/model.json").read_text())
    norms = {name for name in everything if ".merge.1." in name or name.endswith((".1.weight", ".1.bias"))}
    assert norms <= set(told["at_home"]) and model_of(out).keys() == everything.keys() - set(told["at_home"])
    kept = {path.name.split("-")[0]: path for path in (out / "sites").glob("*/state/*/*.safetensors")}
    assert set(told["parents"]) < kept.keys() and len(told["parents"]) == 2


def test_prediction_takes_the_site_s_own(out: Path) -> None:
    folder, cpu = find_export(out), pick_device("cpu")
    exported = read_export(folder, {})
    with pytest.raises(ConfigError, match=r"lacks \d+ tensors, which each site has of its own; give work=DIR"):
        load(folder, exported, cpu)
    with pytest.raises(ConfigError, match=r"work=.*: has not what a site keeps of run"):
        load(folder, exported, cpu, out)
    of_sites = []
    for site in ("site-1", "site-2"):
        network = travelling(load(folder, exported, cpu, out / "sites" / site).network)
        files = [path for path in (out / "sites" / site / "state").glob("*/*") if path.name[:64] in exported.parents]
        (own,) = (parted(load_file(path))[1]["home"] for path in files)
        assert own.keys() == {*exported.at_home}
        assert all(network[name].equal(own.get(name, model_of(out).get(name))) for name in network)
        of_sites.append(own)
    assert any(not of_sites[0][name].equal(of_sites[1][name]) for name in of_sites[0])
