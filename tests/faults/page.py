"""docs/reliability.md, from the results of the scenarios."""

from collections.abc import Mapping
from typing import Any

from faults.scenarios import LARGE, SCENARIOS

Result = Mapping[str, Any]
INTRODUCTION = """# Reliability

What happened to a federation of three hospitals when we killed programs, cut links, filled disks and set clocks
wrong. All ran on one machine, with real processes, TLS, nginx and keys. `make faults` repeats it, in network, mount
and process namespaces of its own (Linux, root), and writes this page.

Each line is one run of two rounds on phantoms (**synthetic**). It was disturbed once, in the first round: at the
server, or at the hospital `site-1`, whose link carries 50 Mbit/s each way. The disks of that hospital and of the
server hold 6 GB each. The model is the U-Net with 5.3 million weights, 21 MB for each update; the lines with large
updates use the CLSTM-UNet3D with 33.6 million weights, 134 MB.

All 30 take more than an hour, so the page is not written anew for every change; the last line says when it was. Three
of the faults are also tests: `make test ARGS="-m deploy tests/deploy/test_faults.py"`.

- **what was done**, and when: *asking*, while the server asks what the site has, before any training; *training*; or
  *transferring*, when the update lies on the site's disk and the server does not have it yet.
- **more**: how many seconds longer the run took than an undisturbed one, and the limit that we set beforehand. Each
  is a single run, so the figure includes whatever else slowed the machine down; it is negative where the run was
  faster.
- **did not count**: the rounds and sites whose update is missing from the weights, with the reason in the history.
- **records**: whether every round is in the history exactly once, whether each site's audit log agrees with the
  server's, and, where all sites counted, whether the weights are those of a simulation, bit for bit.
"""
TRANSFER = """## The price of the transport

The rounds of an undisturbed run, compared with the time that one update's bytes need over the bare link of `site-1`
(TCP without TLS, measured in the same run). In the first round the bytes travel twice, down and up; in the second
they travel down once more, for evaluation. The rest of the time goes to starting programs (each message starts one at
each hospital), to training and to evaluation, for three hospitals on one machine.

| update | weights | first round, s | second round, s | bare transfer, s | second round in transfers |
|---|---|---|---|---|---|"""


def page(results: Mapping[str, Result]) -> str:
    """Write the page from results by the scenarios' names; those that are not there are named."""
    lines = [INTRODUCTION, "| what was done | the run | more, s | did not count | records |", "|---|---|---|---|---|"]
    lines += [_line(name, result, results) for name, result in results.items() if name not in REFERENCES]
    lines += ["", TRANSFER, *(_cost(results[name]) for name in REFERENCES if name in results), ""]
    missing = [name for name in SCENARIOS if name not in results]
    lines += ["Not done yet: " + "; ".join(missing) + ".\n"] if missing else []
    lines += [f"Measured on {each}." for each in sorted({f"{_['machine']}, on {_['date']}" for _ in results.values()})]
    return "\n".join([*lines, ""])


REFERENCES = ("undisturbed", "large updates, undisturbed")


def _line(name: str, result: Result, results: Mapping[str, Result]) -> str:
    usual = results.get(REFERENCES[SCENARIOS[name].settings == LARGE])
    bound, more = SCENARIOS[name].within, ""
    if usual is not None:
        extra = result["seconds"] - usual["seconds"]
        more = f"{extra:.0f} of {bound:.0f}" if extra <= bound else f"**{extra:.0f} of {bound:.0f}**"
    wrong = [*result["wrong"], *([result["missed"]] if result["missed"] else [])]
    records = f"**{'; '.join(wrong)}**" if wrong else "agree"
    return f"| {name} | {result['status']} | {more} | {'; '.join(result['uncounted']) or 'none'} | {records} |"


def _cost(result: Result) -> str:
    size, seconds = result["transfer"]["bytes"], result["transfer"]["seconds"]
    first, second = result["rounds"][:2]
    return f"| {size / 1e6:.0f} MB | {size / 4e6:.1f} M | {first} | {second} | {seconds} | {second / seconds:.1f} |"
