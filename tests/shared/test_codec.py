"""Updates as bytes: what comes back, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.testing import assert_close

from gliofed.shared.codec import (
    CodecError,
    CodedUpdate,
    check_weights,
    encode,
    load_weights,
    travelling,
    weights_from_bytes,
    weights_to_bytes,
    weights_to_train_from,
)
from gliofed.shared.codecs import CODECS, Codec


@pytest.fixture
def update() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"a": torch.randn(4, 5, generator=generator), "zero": torch.zeros(3), "scalar": torch.tensor(-2.5)}


def through(update: dict[str, Tensor], codec: str, folder: Path) -> dict[str, Tensor]:
    path = folder / "update.safetensors"
    path.write_bytes(encode(update, codec))
    coded = CodedUpdate(path, codec)
    return {name: coded.tensor(name) for name in coded.names}


def test_fp32_is_exact(update: dict[str, Tensor], tmp_path: Path) -> None:
    assert_close(through(update, "fp32", tmp_path), update, rtol=0, atol=0)


def test_fp16_is_what_torch_rounds_to(update: dict[str, Tensor], tmp_path: Path) -> None:
    assert_close(through(update, "fp16", tmp_path), {n: t.half().float() for n, t in update.items()}, rtol=0, atol=0)


def test_int8_errs_by_at_most_half_a_step(update: dict[str, Tensor], tmp_path: Path) -> None:
    for name, tensor in through(update, "int8", tmp_path).items():
        step = update[name].abs().max() / 127
        assert (tensor - update[name]).abs().max() <= step / 2 + 1e-7
        assert tensor.shape == update[name].shape


@pytest.mark.parametrize("codec", CODECS)
def test_no_second_moment_becomes_nothing(codec: str, tmp_path: Path) -> None:
    """An optimiser divides by its root, so none may become smaller by much; they span many decades."""
    moments = {"exp_avg_sq/w": torch.logspace(-12, 1, 40), "exp_avg_sq/none": torch.zeros(3)}
    coded = through(moments, codec, tmp_path)
    roots, true = coded["exp_avg_sq/w"].sqrt(), moments["exp_avg_sq/w"].sqrt()
    step = {"fp32": 0.0, "fp16": 0.02 * true, "int8": true.max() / 127, "mixed": true.max() / 127}[codec]
    assert ((0.98 * true <= roots) & (roots <= true * (1 + 1e-6) + step)).all()
    assert (coded["exp_avg_sq/none"] == 0).all()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(codec: str, value: float, tmp_path: Path) -> None:
    """An int8 has no NaN: it must not turn into a harmless number that the gate lets pass."""
    coded = through({"w": torch.tensor([1.0, value])}, codec, tmp_path)
    assert not torch.isfinite(coded["w"]).all()


def test_a_codec_is_one_entry(update: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CODECS, "halves", Codec("bfloat16", lambda t: ((t / 2).bfloat16(), 2.0), lambda t, by: by * t))
    wanted = {name: 2 * (tensor / 2).bfloat16() for name, tensor in update.items()}
    assert_close(through(update, "halves", tmp_path), wanted, rtol=0, atol=0)


def test_a_quarter_of_the_bytes(tmp_path: Path) -> None:
    update = {"w": torch.ones(10_000)}
    sizes = {codec: len(encode(update, codec)) for codec in ("fp32", "fp16", "int8")}
    assert sizes["fp16"] < 0.51 * sizes["fp32"]
    assert sizes["int8"] < 0.26 * sizes["fp32"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not safetensors",
        save({"w": torch.ones(1)}),
        save({"w": torch.ones(1)}, {"codec": "int8", "scales": '{"w": 1}'}),
        save({"w": torch.ones(1)}, {"codec": "fp32", "scales": "[1]"}),
        save({"w": torch.ones(1)}, {"codec": "fp32", "scales": '{"other": 1}'}),
        save({"w": torch.ones(1)}, {"codec": "fp32", "scales": '{"w": "x"}'}),
    ],
)
def test_bytes_that_are_no_update_are_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "update.safetensors"
    path.write_bytes(data)
    with pytest.raises(CodecError):
        CodedUpdate(path, "fp32")


def test_another_dtype_than_the_codec_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "update.safetensors"
    path.write_bytes(save({"w": torch.ones(1).double()}, {"codec": "fp32", "scales": '{"w": 1}'}))
    with pytest.raises(CodecError, match="float64"):
        CodedUpdate(path, "fp32").tensor("w")


def test_integer_buffers_stay_at_home() -> None:
    """BatchNorm counts its batches in an integer; a mean of counts has no meaning."""
    assert set(travelling(nn.BatchNorm1d(2))) == {"weight", "bias", "running_mean", "running_var"}


def test_weights_of_another_model_are_refused() -> None:
    weights = weights_from_bytes(weights_to_bytes(travelling(nn.Linear(2, 1))))
    load_weights(nn.Linear(2, 1), weights)
    with pytest.raises(CodecError, match="bias"):
        load_weights(nn.Linear(2, 1, bias=False), weights)
    with pytest.raises(CodecError, match="not safetensors"):
        weights_from_bytes(b"x")


LIKE = {"a": torch.ones(2, 3), "b": torch.ones(())}


def headed(header: object, data: bytes = bytes(28)) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_a_header_of_the_model_passes() -> None:
    check_weights(weights_to_bytes(LIKE), LIKE)
    check_weights(headed({"b": entry([], 0, 4), "a": entry([2, 3], 4, 28)}), LIKE)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        (2**63).to_bytes(8, "little") + bytes(28),
        headed({"a": entry([2, 3], 0, 24)}, bytes(24)),
        headed({"a": entry([3, 2], 0, 24), "b": entry([], 24, 28)}),
        headed({"a": entry([2, 3], 0, 24, "F64"), "b": entry([], 24, 28)}),
        headed({"a": entry([2, 3], 0, 24), "b": entry([], 24, 28), "c": entry([0], 28, 28)}),
        headed({"a": entry([2, 3], 0, 24), "b": entry([], 0, 4)}),
        headed({"a": entry([2, 3], 0, 2**40), "b": entry([], 2**40, 2**40 + 4)}),
        headed({"a": entry([2, 3], 0, 24), "b": entry([], 24, 28)}, bytes(29)),
        headed({"a": entry([2, 3], 0, 24), "b": entry([], 24, 28), "__metadata__": {"x": "y"}}),
        headed({"a": {"shape": [2, 3]}, "b": entry([], 24, 28)}),
        headed([1]),
        headed({"a": [1], "b": None}),
        headed({"a": entry([2, 3], 0, 24), "b": {"dtype": "F32", "shape": [], "data_offsets": [1e999, 2]}}),
    ],
)
def test_a_header_that_is_not_the_models_is_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        check_weights(data, LIKE)


def test_fp16_has_room_for_any_size(tmp_path: Path) -> None:
    """An update at a small learning rate must not vanish, nor one of a running variance become infinite."""
    sizes = {"small": 1e-9, "large": 1e9, "smallest": 1e-30, "largest": 3e38}
    update = {name: size * torch.linspace(-1, 1, 101) for name, size in sizes.items()}
    for name, tensor in through(update, "fp16", tmp_path).items():
        assert_close(tensor, update[name], rtol=2**-11, atol=sizes[name] * 2**-24)


SENT = {
    "w": torch.linspace(-2, 3, 50),
    "exp_avg/w": torch.linspace(-1, 1, 50),
    "exp_avg_sq/w": torch.logspace(-9, 0, 50),
}


@pytest.mark.parametrize("codec", CODECS)
def test_weights_to_train_from_come_back_as_the_codec_has_them(codec: str, tmp_path: Path) -> None:
    """Weights never in int8, since no site finds again what they lose; coded moments as they come back from a site."""
    data = weights_to_train_from(SENT, codec)
    check_weights(data, SENT, codec)
    found = weights_from_bytes(data)
    assert {name: tensor.dtype for name, tensor in found.items()} == dict.fromkeys(SENT, torch.float32)
    assert_close(found.pop("w"), SENT["w"].half().float() if codec == "mixed" else SENT["w"], rtol=0, atol=0)
    moments = {name: SENT[name] for name in found}
    assert_close(found, through(moments, codec, tmp_path) if codec == "mixed" else moments, rtol=0, atol=0)


def test_weights_that_are_coded_otherwise_are_refused_by_their_header() -> None:
    data = weights_to_train_from(SENT, "mixed")
    odd = {
        "no codec": weights_to_bytes(SENT),
        "an update": encode(SENT, "fp32"),
        "another codec": data.replace(b"mixed", b"fixed"),
        "a scale too few": data.replace(b'\\"w\\"', b'\\"x\\"'),
        "a scale that is none": data.replace(b'\\"w\\": ', b'\\"w\\":"'),
    }
    for name, each in odd.items():
        assert each != data, name
        with pytest.raises(CodecError):
            check_weights(each, SENT, "mixed")
    with pytest.raises(CodecError):
        check_weights(data, SENT)
    for name in ("another codec", "a scale too few"):
        with pytest.raises(CodecError):
            weights_from_bytes(odd[name])
