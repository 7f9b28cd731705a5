"""Weights and updates as bytes: named tensors in one safetensors file, coded as `gliofed.shared.codecs` says."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from gliofed.shared.algorithms import GROUPS, MOMENTS
from gliofed.shared.algorithms.groups import group_of
from gliofed.shared.codecs import CODECS, Codec
from gliofed.shared.parse import MALFORMED
from gliofed.shared.wording import quantity

LONGEST_HEADER = 2**18
"""Bytes; the largest of our models has 10 thousand, and with moments and scales five times as many."""
EXACT = "fp32"
"""The codec that loses nothing."""
DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int8": "I8"}
"""What safetensors calls PyTorch's types."""


class CodecError(ValueError):
    """Bytes that are no update."""


def travelling(model: nn.Module, at_home: Collection[str] = ()) -> dict[str, Tensor]:
    """Return the tensors that travel: parameters and floating buffers, by name; integer buffers stay.

    So do those `at_home`, as the method of the run has them.
    """
    state = model.state_dict()
    return {name: tensor for name, tensor in state.items() if tensor.is_floating_point() and name not in at_home}


def weights_to_bytes(weights: Mapping[str, Tensor]) -> bytes:
    """Global weights as safetensors, in full precision."""
    data: bytes = save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})
    return data


def weights_to_train_from(weights: Mapping[str, Tensor], codec: str) -> bytes:
    """Weights, and what goes beside them, as a run with this codec sends them to be trained."""
    return _coded(weights, codec, sent=True) if CODECS[codec].sent else weights_to_bytes(weights)


def weights_from_bytes(data: bytes) -> dict[str, Tensor]:
    """Inverse of both; what was coded becomes fp32."""
    try:
        weights: dict[str, Tensor] = load(data)
        if (about := _metadata(data).get("coded")) is None:
            return weights
        codec, scales = _read_about(about)
    except (*MALFORMED, SafetensorError) as error:
        raise CodecError(f"weights of {quantity(len(data), 'byte')} are not safetensors: {error}") from None
    if codec not in CODECS or scales.keys() != weights.keys():
        raise CodecError(f"weights coded as {codec!r:.20}, which is not known, or with the scales of others")
    return {
        name: _decoded(name, tensor, _codec_of(name, codec, sent=True), scales[name])
        for name, tensor in weights.items()
    }


def check_weights(data: bytes, like: Mapping[str, Tensor], codec: str = EXACT) -> None:
    """Raise CodecError unless `data` holds tensors of these names and shapes and nothing else, by its header.

    They are coded as `weights_to_train_from` codes them. Only the header is read: nothing is built, and no memory
    taken, for what it says.
    """
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(len(data) - 8, LONGEST_HEADER):
        raise CodecError(
            f"weights of {quantity(len(data), 'byte')} are not safetensors with a header of at most {LONGEST_HEADER}"
        )
    try:
        header = json.loads(data[8 : 8 + size])
        about = codec, dict.fromkeys(like, 1.0)
        if CODECS[codec].sent:
            [about] = [_read_about(each) for each in header.pop("__metadata__").values()]
        found = {name: (tensor["dtype"], tensor["shape"]) for name, tensor in header.items()}
        spans = sorted((int(begin), int(end)) for begin, end in (each["data_offsets"] for each in header.values()))
    except MALFORMED as error:
        raise CodecError(f"weights whose header cannot be read: {type(error).__name__}") from None
    wanted = {
        name: (DTYPES[_codec_of(name, codec, sent=True).dtype], list(tensor.shape)) for name, tensor in like.items()
    }
    if odd := sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)):
        raise CodecError(f"weights do not fit the model: {', '.join(name[:80] for name in odd[:3])}")
    ends = [0, *(end for _, end in spans)]
    if [begin for begin, _ in spans] != ends[:-1] or ends[-1] != len(data) - 8 - size:
        raise CodecError("weights whose tensors overlap, or leave bytes to nobody")
    if about[0] != codec or about[1].keys() != wanted.keys():
        raise CodecError(f"weights coded as {about[0]!r:.20}, not {codec!r}, or with the scales of others")


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], at_home: Collection[str] = ()) -> None:
    """Put weights into a model; names and shapes must be the model's own, but for those that are `at_home`."""
    mine = travelling(model, at_home)
    if mine.keys() != weights.keys():
        odd = sorted(mine.keys() ^ weights.keys())[:3]
        raise CodecError(f"weights do not fit the model: {', '.join(odd)} on one side only")
    model.load_state_dict(dict(weights), strict=False)


def encode(update: Mapping[str, Tensor], codec: str) -> bytes:
    """Code an update."""
    return _coded(update, codec, sent=False)


def _coded(tensors: Mapping[str, Tensor], codec: str, *, sent: bool) -> bytes:
    coded = {}
    for name, tensor in tensors.items():
        kind, full = _codec_of(name, codec, sent=sent), tensor.detach().cpu().float()
        coded[name] = kind.encode_root(full.sqrt()) if kind.encode_root and _never_negative(name) else kind.encode(full)
    about = {"codec": codec, "scales": {name: scale for name, (_, scale) in coded.items()}}
    # One entry: of several, safetensors' order is another in each process, and the same update would be other bytes.
    header = {"coded": json.dumps(about, sort_keys=True)}
    data: bytes = save({name: tensor.contiguous() for name, (tensor, _) in coded.items()}, header)
    return data


def _decoded(name: str, tensor: Tensor, kind: Codec, scale: float) -> Tensor:
    if str(tensor.dtype) != (wanted := f"torch.{kind.dtype}"):
        raise CodecError(f"{name}: {tensor.dtype}, not {wanted}")
    decoded = kind.decode(tensor, scale)
    return decoded.square() if kind.encode_root and _never_negative(name) else decoded


def _codec_of(name: str, codec: str, *, sent: bool) -> Codec:
    """How the tensor of this name travels in a run with this codec."""
    kind = (CODECS[codec].sent or CODECS[EXACT]) if sent else CODECS[codec]
    return (kind.moments or kind) if group_of(name) in MOMENTS else kind


def _read_about(text: str) -> tuple[str, dict[str, float]]:
    about = json.loads(text)
    return about["codec"], {str(name): float(scale) for name, scale in about["scales"].items()}


def _metadata(data: bytes) -> dict[str, str]:
    found: dict[str, str] = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    return found


class CodedUpdate:
    """A coded update on disk, read tensor by tensor.

    It is opened anew for each: safetensors maps the file, and what was read of many sites' would stay in memory.
    """

    def __init__(self, path: Path, codec: str) -> None:
        """Open `path`, or raise CodecError when it is no update in `codec`."""
        self._path = path
        file = self._open()
        try:
            header = file.metadata() or {}
            if "coded" in header:
                found, self._scales = _read_about(header["coded"])
            else:  # of an earlier version, whose spool and stored replies go on
                about = {"codec": header["codec"], "scales": json.loads(header["scales"])}
                found, self._scales = _read_about(json.dumps(about))
        except (*MALFORMED, SafetensorError, OSError) as error:
            raise CodecError(f"no coded update: {type(error).__name__}") from None
        if found != codec:
            raise CodecError(f"coded as {found!r:.20}, not {codec!r}")
        self._codec = codec
        self.names: list[str] = sorted(file.keys())
        if self.names != sorted(self._scales):
            raise CodecError("the scales are not of the tensors")

    def tensor(self, name: str) -> Tensor:
        """Return one tensor, decoded to fp32."""
        return self._decoded(name, self._open().get_tensor(name))

    def part(self, name: str, start: int, stop: int) -> Tensor:
        """Return the values from `start` to `stop` of one tensor as it lies in memory, decoded to fp32.

        Only these are read: safetensors maps the file.
        """
        return self._decoded(name, self._open().get_tensor(name).reshape(-1)[start:stop])

    def _open(self) -> Any:
        try:
            return cast(Any, safe_open(self._path, framework="pt"))  # its stub has no types
        except (*MALFORMED, SafetensorError, OSError) as error:
            raise CodecError(f"no coded update: {type(error).__name__}") from None

    def _decoded(self, name: str, tensor: Tensor) -> Tensor:
        return _decoded(name, tensor, _codec_of(name, self._codec, sent=False), self._scales[name])


def _never_negative(name: str) -> bool:
    group = GROUPS.get(group_of(name))
    return group is not None and group.lowest == 0
