"""Attacks on a finished simulated run: what its model, or its steps, tell of the patients."""

ATTACKS = {name: f"{__name__}.{name}" for name in ("membership", "canaries", "inversion")}
"""Every attack by the name that attack= takes, with its file: PyTorch is imported with that, and not to list them.

A new one is a file with a function of its name, and a name here. The function gets the runs, the settings and a folder,
writes its picture there, and returns a row of figures for each run or more. The file's first sentence is in --help.
"""
