"""Settings that are typed and checked: the fields that several groups share, and how a group is read."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""NumPy's older generators take no larger one."""
Fraction = Annotated[float, Field(ge=0, le=1)]
SITE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
SiteName = Annotated[str, Field(pattern=SITE_NAME)]
"""A site's name becomes a file's name at the server: letters, digits, dot, dash and underscore."""

T = TypeVar("T")


class ConfigError(ValueError):
    """A value that cannot be: names the key, the value and what is allowed."""


class Strict:
    """An unknown key is an error, never ignored."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


def parse(kind: type[T], values: Mapping[str, Any] | str, where: str = "") -> T:
    """Read `kind` from a mapping or a JSON string, or raise ConfigError with every fault in one sentence."""
    adapter: TypeAdapter[T] = _adapter(kind)  # type: ignore[arg-type]  # a type can be hashed
    try:
        return adapter.validate_json(values) if isinstance(values, str) else adapter.validate_python(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_fault(fault, where) for fault in error.errors(include_url=False))) from None


@lru_cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    """Kept: making one takes 20 ms, and a round parses dozens of messages of the same few kinds."""
    return TypeAdapter(kind)


def is_site_name(name: str) -> bool:
    """Whether a name from the network may become a file's name."""
    return re.fullmatch(SITE_NAME, name) is not None


def _fault(fault: Any, where: str) -> str:
    # Where a value may be of several types, the place ends with a type's name: no word for a user.
    place = [str(part) for part in fault["loc"] if re.fullmatch(r"[\w-]+", str(part))]
    key = ".".join([where] * bool(where) + [part for part in place if not part.startswith("constrained-")])
    if fault["type"] == "value_error":  # ours: names the key itself
        return str(fault["ctx"]["error"])
    if fault["type"] == "json_invalid":
        return f"{where or 'config'}: not JSON: {fault['msg']}"
    if fault["type"] == "missing":
        return f"{key}: missing"
    if fault["type"] == "unexpected_keyword_argument":
        return f"{key}: no such key"
    if fault["type"] == "dataclass_type":
        return f"{key}={fault['input']}: must be a group of settings"
    message = fault["msg"].removeprefix("Input ").replace("should", "must")
    return f"{key}={fault['input']}: {message}"
