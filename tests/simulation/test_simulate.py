"""A whole federation in this process, against arithmetic without Flower."""

import fcntl
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from found_cohort import found_cohort
from plain_federation import mean_without_flower, model_of, rounds_of, sites_of
from safetensors.torch import load_file, save_file
from small_run import SMALL, SMALL_GRADING, as_given
from torch.testing import assert_close

from gliofed.client.round.training import train_one_round
from gliofed.server.round.model import initial_model
from gliofed.shared.codec import load_weights, travelling
from gliofed.shared.data.draw import Source, batches
from gliofed.shared.locks import BusyError
from gliofed.shared.models import MODELS, task_of
from gliofed.shared.parse import ConfigError
from gliofed.shared.tasks import TASKS
from gliofed.simulation.settings import parse_settings
from gliofed.simulation.simulate import simulate

Values = Callable[..., dict[str, Any]]


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [1, 2])
def test_one_site_is_local_training(values: Values, out: Path, tmp_path: Path, rounds: int) -> None:
    """FedAvg of one site is that site's training: two rounds are two loops in a row.

    But for one thing: an update is a difference, and w + (w' - w) is not w' in the last bit. AdamW's first steps, of
    3e-3 whatever the gradient, make much of a bit; so the loops end each round in the same way.
    """
    larger = "data.size=[16,16,16]"  # than a patch: where patches lie tells the rounds apart
    settings = values("sites=1", f"rounds={rounds}", larger, f"out={out}")
    assert simulate(settings).status == "done"
    run, _ = parse_settings(settings)
    (site,) = sites_of(settings, run, tmp_path / "plain")
    patients = found_cohort(site, run.data, "visits").train
    model = initial_model(run)
    for number in range(1, rounds + 1):
        before = {name: tensor.clone() for name, tensor in travelling(model).items()}
        source = Source(patients, run.data, run.train, "visits", (run.seed, site.name, number))
        patches = batches(source, 2, torch.device("cpu"))
        train_one_round(model, patches, TASKS[run.task], run.train, 2, torch.device("cpu"))
        after = travelling(model)
        if rounds == 1:  # then nothing was made of the bit yet
            assert_close(model_of(out), after, rtol=0, atol=1e-7)
        load_weights(model, {name: tensor + (after[name] - tensor) for name, tensor in before.items()})
    assert_close(model_of(out), travelling(model), rtol=0, atol=1e-7)


def test_a_federation_is_its_arithmetic(values: Values, out: Path, tmp_path: Path) -> None:
    settings = values("sites=3", f"out={out}")
    assert simulate(settings).status == "done"
    names = ["site-1", "site-2", "site-3"]
    assert_close(model_of(out), mean_without_flower(settings, tmp_path / "plain", names), rtol=0, atol=0)


@pytest.mark.parametrize("model", ["unet", *(pytest.param(m, marks=pytest.mark.slow) for m in MODELS if m != "unet")])
def test_the_order_of_answers_does_not_show(tmp_path: Path, model: str) -> None:
    """Bit for bit the same, whether sites take turns or work side by side; a layer that draws tells."""
    words = SMALL if task_of(model) == "segmentation" else SMALL_GRADING
    models = []
    for at_once in (1, 4):
        out = tmp_path / str(at_once)
        simulate(as_given(*words, f"model={model}", "sites=4", "rounds=1", f"at_once={at_once}", f"out={out}"))
        models.append(model_of(out))
    assert_close(models[0], models[1], rtol=0, atol=0)


@pytest.mark.slow
def test_dropout_is_each_sites_own(tmp_path: Path) -> None:
    """Else its draws depend on which site's step comes first. It does something, and comes out the same again."""
    models = {}
    for name, words in {"plain": (), "turns": ("at_once=1",), "together": ("at_once=4",)}.items():
        dropout = ("model.dropout=0.3",) if words else ()
        out = tmp_path / name
        simulate(as_given(*SMALL, "train.steps=4", "sites=4", "rounds=1", *dropout, *words, f"out={out}"))
        models[name] = model_of(out)
    assert models["turns"].keys() == models["plain"].keys()
    assert_close(models["turns"], models["together"], rtol=0, atol=0)
    assert not any(torch.equal(models["turns"][name], models["plain"][name]) for name in models["plain"])


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
    (out / "run.json").unlink()
    (out / "run.json").mkdir()
    with pytest.raises(IsADirectoryError):  # which the command says as it is: a copy would not help
        simulate(settings | {"resume": str(out)})


def test_a_run_of_an_older_model_is_not_resumed(values: Values, out: Path) -> None:
    """Its sites would decline weights that their model does not have."""
    simulate(values("sites=1", "rounds=1", f"out={out}"))
    file = out / "checkpoints/round-0001/model.safetensors"
    weights = load_file(file)
    save_file({f"older.{name}": tensor for name, tensor in weights.items()}, file)
    with pytest.raises(ConfigError, match="weights of another model than this version of gliofed has"):
        simulate(values() | {"resume": str(out)})


def test_history_has_what_its_readers_need(values: Values, out: Path) -> None:
    simulate(values("sites=2", "rounds=1", "data.patients=8", "data.validation=0.5", f"out={out}"))
    start, event, end = (json.loads(line) for line in (out / "history.jsonl").read_text().splitlines())
    assert start["event"] == "start"
    assert start["config_hash"] == json.loads((out / "run.json").read_text())["config_hash"]
    assert end == {"event": "end", "status": "done"}
    line = event["sites"]["site-1"]
    known = {
        "status",
        "reason",
        "patients",
        "train",
        "evaluate",
        "evaluated",
        "bytes_down",
        "bytes_up",
        "size",
        "share",
    }
    assert line.keys() == known and line["evaluated"] == 4
    assert line["train"].keys() == {"loss"}
    metrics = {"loss", "dice", "jaccard", "recall", "precision", "hd95"}
    assert line["evaluate"].keys() == event["global"].keys() == metrics
    size = (out / "model" / "model.safetensors").stat().st_size
    assert line["bytes_down"] == 2 * size  # to train and to evaluate


def test_going_back_to_an_older_checkpoint(values: Values, out: Path) -> None:
    """A damaged file is named; without that round, the run goes on from the one before, to the same end."""
    settings = values("sites=1", "rounds=2", f"out={out}")
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
        with pytest.raises(BusyError, match="another process"):
            simulate(values("sites=1", "rounds=1", f"out={out}"))


@pytest.mark.slow
def test_codecs_agree_to_their_precision(values: Values, tmp_path: Path) -> None:
    """int8 rounds an update to 127 steps; the weights differ by little."""
    models = {}
    for codec in ("fp32", "fp16", "int8"):
        simulate(values("sites=1", "rounds=1", f"codec={codec}", f"out={tmp_path / codec}"))
        models[codec] = model_of(tmp_path / codec)
    assert_close(models["fp16"], models["fp32"], rtol=1e-3, atol=1e-4)
    assert_close(models["int8"], models["fp32"], rtol=0.05, atol=1e-3)


def test_too_few_updates_fail_the_round_and_can_be_resumed(values: Values, out: Path) -> None:
    settings = values("sites=2", "round.quorum=2", "faults={site-1:nan}", f"out={out}")
    assert simulate(settings).status == "failed"
    end = json.loads((out / "history.jsonl").read_text().splitlines()[-1])
    few = "round 1: 1 update counted, fewer than round.quorum=2; of 1 site 1: "
    assert end["reason"].startswith(few) and "not finite" in end["reason"]
    run = json.loads((out / "run.json").read_text())
    run["simulation"]["faults"] = {}  # the site was mended
    (out / "run.json").write_text(json.dumps(run))
    assert simulate(settings | {"resume": str(out)}).status == "done"


def test_training_that_diverges_is_no_fault_of_the_sites(
    values: Values, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their logs, which the sentence names too, have nothing of it; nor would the run end otherwise if it went on."""
    assert simulate(values("strategy=fedadam", "strategy.lr=1e30", f"out={out}")).status == "failed"
    said = capsys.readouterr().out
    assert "begin anew" in said and "resume=" not in said
    end = json.loads((out / "history.jsonl").read_text().splitlines()[-1])
    assert end["reason"].endswith("; training has diverged: begin anew with a lower train.lr or strategy.lr")


def test_a_run_that_cannot_begin_leaves_no_folder_that_was_not_there(values: Values, tmp_path: Path) -> None:
    """A folder with nothing but a lock looked like a run to go on from."""
    (tmp_path / "there").mkdir()
    for place in ("there", "there/new", "a/b"):
        for word in ("data.size=[8,8]", "device=cuda:77"):
            with pytest.raises(ConfigError):
                simulate(values(word, f"out={tmp_path / place}"))
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert [path.name for path in (tmp_path / "there").iterdir()] == [".lock"]


def test_a_finished_run_is_not_run_again(values: Values, out: Path) -> None:
    settings = values("sites=1", "rounds=1", f"out={out}")
    simulate(settings)
    before = (out / "history.jsonl").read_bytes()
    assert simulate(settings | {"resume": str(out)}).status == "done"
    assert (out / "history.jsonl").read_bytes() == before
