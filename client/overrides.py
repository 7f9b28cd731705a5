"""Words of the command line that Hydra would misread."""

from collections.abc import Mapping


def quoted(word: str, paths: Mapping[str, str]) -> str:
    """Quote a path for Hydra, whose grammar has a meaning for the `=` and `,` in the folders of a sweep.

    `paths` are the keys that hold paths, and what the configuration calls them.

    >>> quoted("model=outputs/0-model=unet,seed=1", {"model": "model.folder"})
    "model.folder='outputs/0-model=unet,seed=1'"
    """
    key, _, value = word.partition("=")
    if key not in paths:
        return word
    if value in ("", "null", "???") or value[0] in "'\"":
        return f"{paths[key]}={value}"
    escaped = value.replace("'", "\\'")
    return f"{paths[key]}='{escaped}'"
