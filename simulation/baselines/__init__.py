"""Reference models: what a federation is compared with, trained beside it from the same data and first weights."""

from collections.abc import Callable, Mapping, Sequence

from gliofed.shared.comparison import OWN, POOLED


def pooled(sites: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """One model on the patients of all sites, as if they were in one place."""
    return {POOLED: tuple(sites)}


def local(sites: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """One model for each site, on its own patients alone."""
    return {f"{OWN}{site}": (site,) for site in sites}


BASELINES: Mapping[str, Callable[[Sequence[str]], dict[str, tuple[str, ...]]]] = {"pooled": pooled, "local": local}
"""Every baseline by the name that baselines= takes: from the sites that counted to the models that are trained, each
with the sites whose samples it gets. The first line of a docstring is in --help."""
