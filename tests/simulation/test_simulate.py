"""A whole federation in this process, against arithmetic without Flower."""

import fcntl
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

import client.work
from client.training import train_one_round
from client.work import train
from server.rounds import initial_model
from shared.codec import load_weights, travelling, weights_to_bytes
from shared.config import RunConfig
from shared.data.dataset import open_cohort
from shared.data.samples import batches
from shared.messages import Reply, Request
from shared.parse import ConfigError
from shared.seeding import generator
from shared.site_config import SiteConfig
from shared.tasks import TASKS
from simulation.settings import parse_settings
from simulation.simulate import simulate
from simulation.sites import Machine, make_sites

Values = Callable[..., dict[str, Any]]


def model_of(out: Path) -> dict[str, Tensor]:
    return load_file(out / "model" / "model.safetensors")


def rounds_of(out: Path) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] == "round"]


def sites_of(values: dict[str, Any], run: RunConfig, folder: Path) -> list[SiteConfig]:
    """Hospitals with the same data as the simulation's, and nothing stored."""
    return make_sites(values["data"], run, values["sites"], Machine("cpu", 1), folder, lambda *_: None)


@pytest.mark.parametrize("rounds", [1, 3])
def test_one_site_is_local_training(values: Values, out: Path, tmp_path: Path, rounds: int) -> None:
    """FedAvg of one site is that site's training: three rounds are three loops in a row.

    But for one thing: an update is a difference, and w + (w' - w) is not w' in the last bit. AdamW's first steps, of
    3e-3 whatever the gradient, make much of a bit; so the loops end each round in the same way.
    """
    settings = values("sites=1", f"rounds={rounds}", f"out={out}")
    assert simulate(settings).status == "done"
    run, _ = parse_settings(settings)
    (site,) = sites_of(settings, run, tmp_path / "plain")
    patients = open_cohort(site, run.data, "visits").train
    model = initial_model(run)
    for number in range(1, rounds + 1):
        before = {name: tensor.clone() for name, tensor in travelling(model).items()}
        rng = generator(run.seed, site.name, number, "patches")
        patches = batches(patients, run.data, run.train, rng, "visits")
        train_one_round(model, patches, TASKS[run.task], run.train, 2, torch.device("cpu"))
        after = travelling(model)
        if rounds == 1:  # then nothing was made of the bit yet
            assert_close(model_of(out), after, rtol=0, atol=1e-7)
        load_weights(model, {name: tensor + (after[name] - tensor) for name, tensor in before.items()})
    assert_close(model_of(out), travelling(model), rtol=0, atol=1e-7)


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


def test_a_federation_is_its_arithmetic(values: Values, out: Path, tmp_path: Path) -> None:
    settings = values("sites=3", f"out={out}")
    assert simulate(settings).status == "done"
    names = ["site-1", "site-2", "site-3"]
    assert_close(model_of(out), mean_without_flower(settings, tmp_path / "plain", names), rtol=0, atol=0)


def test_the_order_of_answers_does_not_show(values: Values, tmp_path: Path) -> None:
    """Bit for bit the same, whether sites take turns or work side by side."""
    models = []
    for at_once in (1, 4):
        out = tmp_path / str(at_once)
        simulate(values(f"at_once={at_once}", f"out={out}"))
        models.append(model_of(out))
    assert_close(models[0], models[1], rtol=0, atol=0)


FAULTS = {
    "nan": ("refused", "not finite"),
    "inf": ("refused", "not finite"),
    "scale": ("refused", "norm"),
    "shape": ("refused", "wrong shape"),
    "zero_patients": ("refused", "0 patients"),
    "raise": ("failed", "the site's program failed"),
    "hang": ("late", "no answer within round.deadline=2 s"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_bad_site_of_four_does_not_count(values: Values, out: Path, tmp_path: Path, fault: str) -> None:
    overrides = ["sites=4", f"faults={{site-2:{fault}}}", f"out={out}"]
    if fault == "hang":
        overrides.append("round.deadline=2")
    settings = values(*overrides)
    outcome = simulate(settings)
    assert outcome.status == "incomplete"
    status, reason = FAULTS[fault]
    first, second = rounds_of(out)
    for number, event in enumerate((first, second)):
        line = event["sites"]["site-2"]
        if fault == "hang" and number:  # asked once only
            assert (line["status"], line["reason"]) == ("not_asked", "has not answered since round 1")
        else:
            assert line["status"] == status
            assert reason in line["reason"]
        others = [event["sites"][site]["status"] for site in ("site-1", "site-3", "site-4")]
        assert others == ["counted"] * 3
    honest = ["site-1", "site-3", "site-4"]
    assert_close(model_of(out), mean_without_flower(settings, tmp_path / "plain", honest), rtol=0, atol=0)


@pytest.mark.parametrize("at_once", [1, 4])
@pytest.mark.parametrize("work", ["prepare", "evaluate"])
def test_a_site_that_hangs_elsewhere_is_named_and_asked_once(
    values: Values, out: Path, monkeypatch: pytest.MonkeyPatch, work: str, at_once: int
) -> None:
    """Loading is where a real site is likeliest to hang."""
    original, release = getattr(client.work, work), threading.Event()

    def hang(site: SiteConfig, request: Request) -> Reply:
        if site.name == "site-2":
            release.wait()
        reply: Reply = original(site, request)
        return reply

    monkeypatch.setattr(client.work, work, hang)
    outcome = simulate(values("sites=4", "rounds=2", "round.deadline=2", f"at_once={at_once}", f"out={out}"))
    release.set()
    assert outcome.hung
    first, second = (event["sites"] for event in rounds_of(out))
    assert first.keys() == second.keys() == {"site-1", "site-2", "site-3", "site-4"}
    expected = {"prepare": ("late", "no answer"), "evaluate": ("counted", "evaluation late")}[work]
    assert first["site-2"]["status"] == expected[0]
    assert first["site-2"]["reason"].startswith(expected[1])
    assert second["site-2"]["status"] == "not_asked"


def test_resume_changes_nothing_of_what_was_agreed(values: Values, out: Path) -> None:
    settings = values("sites=2", "rounds=1", "round.quorum=2", "faults={site-1:raise}", f"out={out}")
    assert simulate(settings).status == "failed"
    before = (out / "run.json").read_bytes()
    assert simulate(settings | {"resume": str(out)}).status == "failed"
    assert (out / "run.json").read_bytes() == before
    run = json.loads(before)
    run["simulation"]["train"]["lr"] = 0.5
    (out / "run.json").write_text(json.dumps(run))
    with pytest.raises(ConfigError, match=r"run\.json was changed"):
        simulate(settings | {"resume": str(out)})
    (out / "run.json").write_text("{")
    with pytest.raises(ConfigError, match=r"run\.json is damaged"):
        simulate(settings | {"resume": str(out)})


def test_history_has_what_its_readers_need(values: Values, out: Path) -> None:
    simulate(values("sites=2", "rounds=1", "data.patients=8", "data.validation=0.5", f"out={out}"))
    start, event, end = (json.loads(line) for line in (out / "history.jsonl").read_text().splitlines())
    assert start["event"] == "start"
    assert start["config_hash"] == json.loads((out / "run.json").read_text())["config_hash"]
    assert end == {"event": "end", "status": "done"}
    line = event["sites"]["site-1"]
    assert line.keys() == {"status", "reason", "patients", "train", "evaluate", "bytes_down", "bytes_up"}
    assert line["train"].keys() == {"loss"}
    metrics = {"loss", "dice", "jaccard", "recall", "precision", "hd95"}
    assert line["evaluate"].keys() == event["global"].keys() == metrics
    size = (out / "model" / "model.safetensors").stat().st_size
    assert line["bytes_down"] == 2 * size  # to train and to evaluate


@pytest.mark.parametrize("fault", ["nan", "inf", "scale", "shape"])
def test_faults_are_what_they_say_in_every_codec(values: Values, out: Path, fault: str) -> None:
    """int8 has no NaN: the gate must see it all the same."""
    simulate(values("sites=4", "rounds=1", "codec=int8", f"faults={{site-2:{fault}}}", f"out={out}"))
    (event,) = rounds_of(out)
    assert FAULTS[fault][1] in event["sites"]["site-2"]["reason"]


def test_going_back_to_an_older_checkpoint(values: Values, out: Path) -> None:
    """A damaged file is named; without that round, the run goes on from the one before, to the same end."""
    settings = values("sites=2", "rounds=2", f"out={out}")
    simulate(settings)
    model = (out / "model" / "model.safetensors").read_bytes()
    history = (out / "history.jsonl").read_text().splitlines(keepends=True)
    (out / "history.jsonl").write_text("".join(history[:-1]))  # as if killed before the end
    newest = out / "checkpoints" / "round-0002"
    (newest / "model.safetensors").write_bytes(b"xx")
    with pytest.raises(ConfigError, match="round-0002: damaged"):
        simulate(settings | {"resume": str(out)})
    shutil.rmtree(newest)
    assert simulate(settings | {"resume": str(out)}).status == "done"
    assert [event["round"] for event in rounds_of(out)] == [1, 2]
    assert (out / "model" / "model.safetensors").read_bytes() == model


def test_one_process_a_folder(values: Values, out: Path) -> None:
    out.mkdir()
    with (out / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process"):
            simulate(values("sites=1", "rounds=1", f"out={out}"))


def test_codecs_agree_to_their_precision(values: Values, tmp_path: Path) -> None:
    """int8 rounds an update to 127 steps; the weights differ by little."""
    models = {}
    for codec in ("fp32", "fp16", "int8"):
        simulate(values("sites=2", "rounds=1", f"codec={codec}", f"out={tmp_path / codec}"))
        models[codec] = model_of(tmp_path / codec)
    assert_close(models["fp16"], models["fp32"], rtol=1e-3, atol=1e-4)
    assert_close(models["int8"], models["fp32"], rtol=0.05, atol=1e-3)


def test_too_few_updates_fail_the_round_and_can_be_resumed(values: Values, out: Path) -> None:
    settings = values("sites=2", "round.quorum=2", "faults={site-1:nan}", f"out={out}")
    assert simulate(settings).status == "failed"
    end = json.loads((out / "history.jsonl").read_text().splitlines()[-1])
    assert end["reason"] == "round 1: 1 updates counted, fewer than round.quorum=2"
    run = json.loads((out / "run.json").read_text())
    run["simulation"]["faults"] = {}  # the site was mended
    (out / "run.json").write_text(json.dumps(run))
    assert simulate(settings | {"resume": str(out)}).status == "done"


def test_a_finished_run_is_not_run_again(values: Values, out: Path) -> None:
    settings = values("sites=1", "rounds=1", f"out={out}")
    simulate(settings)
    before = (out / "history.jsonl").read_bytes()
    assert simulate(settings | {"resume": str(out)}).status == "done"
    assert (out / "history.jsonl").read_bytes() == before
