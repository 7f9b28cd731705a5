"""Settings that are typed and checked: the fields that several groups share, and how a group is read."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, FailFast, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError, SchemaValidator
from pydantic_core.core_schema import no_info_before_validator_function

from gliofed.shared.terminal import UserError
from gliofed.shared.wording import quantity

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""NumPy's older generators take no larger one."""
Fraction = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(gt=0, le=1e7)]
"""Up to four months."""
Name = Annotated[str, Field(max_length=64)]
Names = Annotated[tuple[Name, ...], Field(min_length=1, max_length=16), FailFast()]
"""Of channels. One fault of a list is enough: a hostile one would have thousands."""


def matching(pattern: str, rule: str) -> AfterValidator:
    """Take only text that matches as a whole; `rule` says what it must be, with an example."""

    def check(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise PydanticCustomError("matching", rule)
        return text

    return AfterValidator(check)


def key_of(registry: Mapping[str, object]) -> BeforeValidator:
    """Take only a key that the registry has when the value is read; the sentence lists them all."""

    def check(value: object) -> object:
        if not isinstance(value, str) or value not in registry:
            *others, last = map(repr, registry)
            raise PydanticCustomError("key", "must be {keys}", {"keys": f"{', '.join(others)} or {last}"})
        return value

    return BeforeValidator(check)


SITE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_NAME_WORDS = "must be 1 to 64 letters, digits, dots, dashes and underscores, with a letter or digit first, as site-1"
SiteName = Annotated[str, matching(SITE_NAME, _NAME_WORDS)]
"""A site's name becomes a file's name at the server."""

T = TypeVar("T")
MOST_FAULTS = 8
"""In one sentence."""
LONGEST = 100
"""Characters of a wrong value in it."""
MALFORMED = (KeyError, ValueError, ArithmeticError, AttributeError, TypeError, RecursionError)
"""What reading JSON from elsewhere raises where it is not of the form that is expected."""


class ConfigError(UserError, ValueError):
    """A value that cannot be: names the key, the value and what is allowed."""


class Strict:
    """An unknown key is an error, never ignored."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


def parse(kind: type[T], values: Mapping[str, Any] | str, where: str = "") -> T:
    """Read `kind` from a mapping or a JSON string, or raise ConfigError with the faults in one sentence."""
    adapter: TypeAdapter[T] = _adapter(kind)  # type: ignore[arg-type]  # a type can be hashed
    try:
        return adapter.validate_json(values) if isinstance(values, str) else adapter.validate_python(values)
    except ValidationError as error:
        faults = [fault for fault in error.errors(include_url=False) if not _follows(fault)]
        more = [f"and {quantity(len(faults) - MOST_FAULTS, 'more fault')}"] if len(faults) > MOST_FAULTS else []
        raise ConfigError("; ".join([_fault(fault, where) for fault in faults[:MOST_FAULTS]] + more)) from None


@lru_cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    """Kept: making one takes 20 ms, and a round parses dozens of messages of the same few kinds."""
    adapter = TypeAdapter(kind)
    adapter.validator = SchemaValidator(_without_truth(adapter.core_schema))
    return adapter


def _without_truth(schema: Any) -> Any:
    """Pydantic's schema, in which no number may be true or false, which it takes for 1 and 0."""
    if isinstance(schema, list | tuple):
        return type(schema)(map(_without_truth, schema))
    if not isinstance(schema, dict):
        return schema
    inner = {key: value if key in ("default", "metadata") else _without_truth(value) for key, value in schema.items()}
    return no_info_before_validator_function(_no_truth, inner) if schema.get("type") in ("int", "float") else inner


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("truth", "must be a number")
    return value


def is_site_name(name: str) -> bool:
    """Whether a name from the network may become a file's name."""
    return re.fullmatch(SITE_NAME, name) is not None


def _follows(fault: Any) -> bool:
    """Whether a list is too short only because its items are wrong, which are faults of their own."""
    return bool(fault["type"] == "too_short" and len(fault["input"]) >= fault["ctx"]["min_length"])


def _fault(fault: Any, where: str) -> str:
    # Where a value may be of several types, the place ends with a type's name: no word for a user.
    unknown = fault["type"] == "unexpected_keyword_argument"
    known = fault["loc"][:-1] if unknown else fault["loc"]
    place = [str(part) for part in known if re.fullmatch(r"[\w-]{1,64}", str(part))]
    place += [_shown(part) for part in fault["loc"][-1:] if unknown]
    key = ".".join([where] * bool(where) + [part for part in place if not part.startswith("constrained-")])
    if fault["type"] == "value_error":  # ours: names the key itself
        return str(fault["ctx"]["error"])
    if fault["type"] == "json_invalid":
        return f"{where or 'config'}: not JSON: {fault['msg']}"
    if fault["type"] == "missing":
        if isinstance(number := fault["loc"][-1], int):  # of a list that is too short
            return f"{key.rpartition('.')[0]}: {quantity(number, 'value')}, and it needs more"
        return f"{key}: missing"
    if unknown:
        return f"{key}: no such key"
    if fault["type"] == "dataclass_type":
        return f"{key}={_shown(fault['input'])}: must be a group of settings"
    if fault["type"] == "dict_type":
        return f"{key}={_shown(fault['input'])}: must be names with a value for each, in braces"
    if fault["type"] == "tuple_type":
        return f"{key}={_shown(fault['input'])}: must be a list, in brackets"
    # "Tuple should have at least 1 item after validation, not 0", say
    message = re.sub(r"^\w+ should (.*?)( after validation.*)?$", r"must \1", fault["msg"])
    return f"{key}={_shown(fault['input'])}: {message}"


def _shown(value: Any) -> str:
    try:
        text = str(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        text = "a number of thousands of digits"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
