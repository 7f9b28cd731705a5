"""What a simulation left behind, and the same rounds as a plain loop, without Flower."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from judged_site import train
from safetensors.torch import load_file
from torch import Tensor

from gliofed.server.round.model import initial_model
from gliofed.shared.codec import load_weights, travelling, weights_to_bytes
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Request
from gliofed.shared.site_config import SiteConfig
from gliofed.simulation.settings import parse_settings
from gliofed.simulation.sites import make_sites


def model_of(out: Path) -> dict[str, Tensor]:
    return load_file(out / "model" / "model.safetensors")


def rounds_of(out: Path) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] == "round"]


def sites_of(values: dict[str, Any], run: RunConfig, folder: Path) -> list[SiteConfig]:
    """Hospitals with the same data as the simulation's, and nothing stored."""
    settings = replace(parse_settings(values)[1], device="cpu", threads=1)
    return make_sites(values["data"], run, settings, folder, lambda *_: None)


def mean_without_flower(values: dict[str, Any], folder: Path, honest: list[str]) -> dict[str, Tensor]:
    """Rounds of FedAvg as a loop over the honest sites."""
    run, _ = parse_settings(values)
    sites = [site for site in sites_of(values, run, folder) if site.name in honest]
    model = initial_model(run)
    for number in range(1, run.rounds + 1):
        weights = {name: tensor.clone() for name, tensor in travelling(model).items()}
        request = Request(run_id="oracle", round=number, config=run, weights=weights_to_bytes(weights))
        mean = {name: torch.zeros(tensor.shape, dtype=torch.float64) for name, tensor in weights.items()}
        replies = [train(site, request) for site in sites]
        for reply in replies:
            path = folder / "update.safetensors"
            path.write_bytes(reply.update)
            for name, tensor in load_file(path).items():
                mean[name] += tensor.double() * reply.patients
        patients = sum(reply.patients for reply in replies)
        load_weights(model, {name: weights[name] + (mean[name] / patients).float() for name in weights})
    return travelling(model)
