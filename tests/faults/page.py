"""docs/reliability.md, from the results of the scenarios."""

from collections.abc import Mapping
from typing import Any

from faults.scenarios import LARGE, SCENARIOS

Result = Mapping[str, Any]
INTRODUCTION = """# Reliability

What was done to a federation of three hospitals on one machine, with real processes, TLS, nginx and keys, and what came
of it. `make faults` does it again, in network, mount and process namespaces of its own (Linux, root), and writes this
page. Each line is a run of two rounds on phantoms (**synthetic**) that was disturbed once, in its first round: at the
server, or at the hospital `site-1`, whose link has 50 Mbit/s each way and whose disk and the server's are of 6 GB. The
model is the U-Net with 5.3 million weights, 21 MB an update; large updates are the CLSTM-UNet3D's with 33.6
million, 134 MB.

- **more**: seconds that the run took beyond one that was not disturbed, and the bound that was set before. One run
  each, so whatever else the machine did meanwhile is in them.
- **did not count**: in which round which site's update is not in the weights, and what the history says of it.
- **books**: whether every round is in the history once, each site's audit log and the server's hold each other, and,
  where all sites counted, the weights are bit for bit those of a simulation.
"""
TRANSFER = """## The price of the transport

Rounds of a run that was not disturbed, against the time that the bytes of one update take over the bare link of
`site-1` (TCP without TLS, measured in the same run). In the first round they travel twice, down and up; in the second
once more down, for evaluation. The rest is programs that start (each message starts one at each hospital), training
and evaluation, of three hospitals on one machine.

| update | weights | first round, s | second round, s | bare transfer, s | second round in transfers |
|---|---|---|---|---|---|"""


def page(results: Mapping[str, Result]) -> str:
    """Write the page from results by the scenarios' names; those that are not there are named."""
    lines = [INTRODUCTION, "| what was done | the run | more, s | did not count | books |", "|---|---|---|---|---|"]
    lines += [_line(name, result, results) for name, result in results.items() if name not in REFERENCES]
    lines += ["", TRANSFER, *(_cost(results[name]) for name in REFERENCES if name in results), ""]
    missing = [name for name in SCENARIOS if name not in results]
    lines += ["Not done yet: " + "; ".join(missing) + ".\n"] if missing else []
    lines += [f"Machine: {each}." for each in sorted({f"{_['machine']}, {_['date']}" for _ in results.values()})]
    return "\n".join([*lines, ""])


REFERENCES = ("undisturbed", "large updates, undisturbed")


def _line(name: str, result: Result, results: Mapping[str, Result]) -> str:
    usual = results.get(REFERENCES[SCENARIOS[name].settings == LARGE])
    bound, more = SCENARIOS[name].within, ""
    if usual is not None:
        extra = result["seconds"] - usual["seconds"]
        more = f"{extra:.0f} of {bound:.0f}" if extra <= bound else f"**{extra:.0f} of {bound:.0f}**"
    wrong = [*result["wrong"], *([result["missed"]] if result["missed"] else [])]
    books = f"**{'; '.join(wrong)}**" if wrong else "hold"
    return f"| {name} | {result['status']} | {more} | {'; '.join(result['uncounted']) or 'none'} | {books} |"


def _cost(result: Result) -> str:
    size, seconds = result["transfer"]["bytes"], result["transfer"]["seconds"]
    first, second = result["rounds"][:2]
    return f"| {size / 1e6:.0f} MB | {size / 4e6:.1f} M | {first} | {second} | {seconds} | {second / seconds:.1f} |"
