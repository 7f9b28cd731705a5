"""Weights that a run is to start from: what is refused in a sentence, and what is said of the rest."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from left_model import edit, given, leave, start
from safetensors.torch import load_file, save_file

from gliofed.server.round.model import first_model, first_state, initial_model
from gliofed.shared.config import RunConfig
from gliofed.shared.parse import ConfigError, parse
from gliofed.shared.run_folder import RunFolder

Make = Callable[..., RunConfig]
Change = Callable[[Path], object]


@pytest.mark.parametrize("place", ["", "model", "model/model.safetensors", "best"])
def test_a_run_begins_with_the_weights_of_another(left: Path, tmp_path: Path, run_config: Make, place: str) -> None:
    run = start(tmp_path / "new", left / place, run_config())
    assert given(left / place).check(run) == []
    found = first_model(run, RunFolder(tmp_path / "new")).state_dict()
    wanted = load_file(left / "model/model.safetensors")
    assert found.keys() == wanted.keys() and all(found[name].equal(each) for name, each in wanted.items())
    assert any(not found[name].equal(each) for name, each in initial_model(run).state_dict().items())  # of seed 0


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors of a bare file, which nothing describes."""
    tensors = load_file(folder / "model/model.safetensors")
    change(tensors)
    save_file(tensors, folder / "bare.safetensors")


def first(tensors: dict[str, torch.Tensor]) -> str:
    return min(tensors)


def drop(tensors: dict[str, torch.Tensor]) -> object:
    return tensors.pop(first(tensors))


def spoil(tensors: dict[str, torch.Tensor], value: float) -> None:
    tensors[first(tensors)].view(-1)[0] = value


def half(tensors: dict[str, torch.Tensor]) -> None:
    tensors[first(tensors)] = tensors[first(tensors)].half()


def turn(tensors: dict[str, torch.Tensor]) -> None:
    name = next(name for name, tensor in tensors.items() if tensor.dim() > 1)
    tensors[name] = tensors[name].transpose(0, 1).contiguous()


BARE: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "one tensor less": (drop, "has 1 tensor too few for this run's model"),
    "one tensor more": (lambda tensors: tensors.update(more=torch.ones(1)), "has 1 tensor too many .*more, say"),
    "another shape": (turn, r"of shape \(.*\), and in this run's model .* of shape"),
    "half precision": (half, "is float16 .*, and in this run's model float32"),
    "NaN": (lambda tensors: spoil(tensors, float("nan")), "has NaN or infinity; give the model of another"),
    "infinity": (lambda tensors: spoil(tensors, float("inf")), "has NaN or infinity; give the model of another"),
}


@pytest.mark.parametrize("name", BARE)
def test_tensors_that_do_not_fit_are_refused(left: Path, run_config: Make, name: str) -> None:
    change, sentence = BARE[name]
    change_tensors(left, change)
    with pytest.raises(ConfigError, match=f"^init=.*bare.safetensors: .*{sentence}"):
        given(left / "bare.safetensors").check(run_config())


def test_the_same_model_with_other_tensors_is_of_another_version(left: Path, run_config: Make) -> None:
    """Its model.json has this run's settings, so to ask for other settings would cure nothing."""
    change_tensors(left, drop)
    (left / "bare.safetensors").rename(left / "model/model.safetensors")
    (left / "model/provenance.json").unlink()
    with pytest.raises(ConfigError, match=r"1 tensor too few .*; another version of gliofed wrote it"):
        given(left).check(run_config())


def test_a_file_alone_is_taken_and_its_unknowns_are_said(left: Path, tmp_path: Path, run_config: Make) -> None:
    """Other tools add metadata to the header; what a channel means stands nowhere."""
    run = run_config()
    save_file(load_file(left / "model/model.safetensors"), tmp_path / "bare.safetensors", {"format": "pt"})
    (said,) = given(tmp_path / "bare.safetensors").check(run)
    assert "no model.json beside it" in said and f"data.modalities={','.join(run.data.modalities)}" in said
    assert f"data.regions={','.join(run.data.regions)}" in said
    first_model(start(tmp_path / "new", tmp_path / "bare.safetensors", run), RunFolder(tmp_path / "new"))
    (origin,) = json.loads((tmp_path / "new/init/provenance.json").read_text())
    assert origin["origin"] == "file" and str(tmp_path) not in json.dumps(origin)


OTHER = {
    ("model=lstm_unet",): "model=unet, and this run has model=lstm_unet; give model=unet",
    ("model.preset=tiny",): "model.preset=demo, and this run has model.preset=tiny",
    ("data.modalities=[t2,t1,t1ce,flair]",): r"data.modalities=\[.*\], and this run has data.modalities=\[t2,t1",
    ("data.regions=[tc,wt]",): r"data.regions=\[wt,tc\], and this run has data.regions=\[tc,wt\]; give data.regions",
}


@pytest.mark.parametrize("words", OTHER, ids=" ".join)
def test_another_model_is_refused_by_its_description(tmp_path: Path, run_config: Make, words: tuple[str, ...]) -> None:
    """Of regions and modalities in another order the tensors have the same shapes: nothing else would show it."""
    two = "data.regions=[wt,tc]"
    left = leave(tmp_path / "left", run_config(two))
    with pytest.raises(ConfigError, match=f"^init=.*: was trained with {OTHER[words]}"):
        given(left).check(run_config(two, *words))


def test_options_that_the_weights_do_not_depend_on_may_change(left: Path, run_config: Make) -> None:
    words = ("model.dropout=0.2", "rounds=9", "train.lr=0.1", "data.validation=0.5", "data.patch=[16,16,16]", "seed=3")
    assert given(left).check(run_config(*words)) == []


def test_an_option_at_the_model_s_own_choice_is_that_of_none(left: Path, run_config: Make) -> None:
    assert given(left).check(run_config("model.deep_supervision=false")) == []
    with pytest.raises(ConfigError, match=r"was trained with model\.deep_supervision=null, and this run has .*=true"):
        given(left).check(run_config("model.deep_supervision=true"))


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def swap(left: Path) -> Path:
    """Other weights of the same shapes, under the description and provenance of these."""
    tensors = load_file(left / "model/model.safetensors")
    spoil(tensors, 9.0)
    save_file(tensors, left / "model/model.safetensors")
    return left


FOREIGN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing there": (lambda left: left / "none", "not there; give a run's folder"),
    "a run without a model": (lambda left: left.parent, "no model.json and model.safetensors there"),
    "a pickle": (lambda left: write(left / "net.pt", pickle.dumps({"w": 1})), "not a .safetensors file; a pickle"),
    "a pickle by another name": (
        lambda left: write(left / "net.safetensors", pickle.dumps({"w": 1})),
        "not safetensors: .*; copy the file again",
    ),
    "half a file": (
        lambda left: write(left / "net.safetensors", (left / "model/model.safetensors").read_bytes()[:-9]),
        "not safetensors: .*; copy the file again",
    ),
    "a file beside another's description": (
        lambda left: write(left / "model/net.safetensors", (left / "model/model.safetensors").read_bytes()),
        "model.json beside it is of model.safetensors; give the folder",
    ),
    "a damaged description": (lambda left: write(left / "model/model.json", b"{") and left, "model.json: not JSON"),
    "swapped weights": (swap, "provenance.json: its last entry is not of model.safetensors beside it"),
    "a provenance of nothing": (lambda left: edit(left, list.clear), "its last entry is not of model.safetensors"),
    "a provenance that is none": (
        lambda left: write(left / "model/provenance.json", b'[{"weights_sha256": 1}]') and left,
        r"provenance.json: damaged \(ValueError\); copy the whole folder again",
    ),
    "a provenance with a gap": (
        lambda left: edit(left, lambda chain: chain.insert(0, {"weights_sha256": "0" * 64})),
        "an entry does not begin with the weights that the one before it left",
    ),
    "a provenance without its beginning": (
        lambda left: edit(left, lambda chain: chain[0].update(init_sha256="0" * 64)),
        "an entry does not begin with the weights that the one before it left",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_model_is_refused_in_a_sentence(left: Path, run_config: Make, name: str) -> None:
    place, sentence = FOREIGN[name]
    with pytest.raises(ConfigError, match=sentence) as refused:
        given(place(left)).check(run_config())
    assert "\n" not in str(refused.value) and str(left.parent) in str(refused.value)


def test_a_model_of_an_earlier_version_has_an_unknown_origin(left: Path) -> None:
    (left / "model/provenance.json").unlink()
    (origin,) = given(left).provenance
    assert (origin["origin"], origin["run_id"], origin["weights_sha256"]) == ("run", "a" * 32, given(left).sha256)


def lose(files: RunFolder) -> None:
    (files.init / "model.safetensors").unlink()


def turn_bit(files: RunFolder) -> None:
    data = bytearray((files.init / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (files.init / "model.safetensors").write_bytes(data)


def forget(files: RunFolder) -> None:
    (files.init / "provenance.json").unlink()


@pytest.mark.parametrize("damage", [lose, turn_bit, forget])
def test_a_run_does_not_go_on_from_other_weights(
    left: Path, tmp_path: Path, run_config: Make, damage: Callable[[RunFolder], None]
) -> None:
    """Else a resumed run would silently be another, or leave a model whose provenance is not true."""
    files = RunFolder(tmp_path / "new")
    run = start(files.root, left, run_config())
    first_state(run, files)
    damage(files)
    with pytest.raises(ConfigError, match=f"{files.init}.*put init/ back from a copy"):
        first_state(run, files)


def test_tensors_at_home_must_be_the_same(tmp_path: Path, run_config: Make) -> None:
    """A model without norms would begin with those of a new model at a method that sends them, unasked."""
    plain, fedbn = run_config(), run_config("algorithm=fedbn")
    of_plain, of_fedbn = leave(tmp_path / "plain", plain), leave(tmp_path / "fedbn", fedbn)
    with pytest.raises(ConfigError, match=r"lacks \d+ tensors that the sites of that run kept to themselves"):
        given(of_fedbn).check(plain)
    with pytest.raises(ConfigError, match=r"has \d+ tensors that stay at the sites with algorithm=fedbn"):
        given(of_plain).check(fedbn)
    (said,) = given(of_fedbn).check(fedbn)
    assert "there every site begins as with a new model" in said
    run = start(tmp_path / "new", of_fedbn, fedbn)
    state, _ = first_state(run, RunFolder(tmp_path / "new"))
    assert state.weights.keys() == load_file(of_fedbn / "model/model.safetensors").keys()


PRIVATE = ("privacy=dp_sgd", "privacy=local_update", "privacy=central")


@pytest.mark.parametrize("privacy", PRIVATE)
def test_a_private_run_says_what_its_budget_does_not_cover(left: Path, run_config: Make, privacy: str) -> None:
    (said,) = given(left).check(run_config(privacy))
    assert f"trained without privacy in run {'a' * 32}, so privacy.epsilon does not cover" in said


def test_nothing_is_said_where_all_training_was_private(tmp_path: Path, run_config: Make) -> None:
    run = run_config("privacy=dp_sgd")
    assert given(leave(tmp_path / "private", run)).check(run) == []
    tested = run_config("privacy=dp_sgd", "privacy.test_seed=1")  # whose noise anybody can compute
    assert len(given(leave(tmp_path / "test", tested)).check(run)) == 1


def test_the_run_s_hash_tells_what_it_starts_from_and_stays_without(run_config: Make) -> None:
    run = run_config()
    assert '"init"' not in run.as_json
    assert len({run.hash, replace(run, init="0" * 64).hash, replace(run, init="1" * 64).hash}) == 3
    with pytest.raises(ConfigError, match="init=somewhere: must be a SHA-256"):
        parse(RunConfig, {**json.loads(run.as_json), "init": "somewhere"})
