"""Pages of one file: templates with everything in them, so that nothing is fetched when somebody opens one."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # not every command draws a page
    from jinja2 import Environment

HERE = Path(__file__).parent
"""What all pages share: frame, style, script, and macros for pictures."""


def render(folder: Path, template: str, **values: Any) -> str:
    """Fill a template of `folder`; what is shown is escaped, None is a dash, and an unknown name is an error."""
    return _environment(folder).get_template(template).render(**values)


@cache  # a run draws its page after every round
def _environment(folder: Path) -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader([folder, HERE])
    return Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: "-" if value is None else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
