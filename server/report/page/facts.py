"""What a report says of a run as such: how it stands, its privacy, its configuration, and how to repeat it."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from gliofed.server.report.record import Record, word
from gliofed.shared.mechanisms import MECHANISMS
from gliofed.shared.terminal import command_line
from gliofed.shared.wording import quantity

SAID = {
    "none": "No noise is added. Who has the model may find out about those who trained it.",
    "dp_sgd": "Each local step is private (dp_sgd): noise hides a patient with all visits.",
    "local_update": "Noise is added to the whole update before it leaves a site (local_update): it hides the site.",
    "central": "The server adds noise to the sum of the updates (central): what a site sends is not private itself.",
}


def about(record: Record) -> dict[str, Any]:
    """The head of the page."""
    last = record.attempts[-1]["round"] if record.attempts else 0
    planned = record.setting("rounds")
    status = record.end["status"] if record.end else "not ended"
    tones = {"done": "good", "incomplete": "warn", "failed": "bad"}
    kinds = {"mock": "synthetic: made-up shapes", "phantom": "synthetic: phantoms", "folder": "a folder of scans"}
    facts = [
        record.setting("model", "name"),
        record.setting("task"),
        quantity(len(record.sites), "site"),
        f"round {last} of {planned}" if planned else f"round {last}",
        quantity(round(sum(event["seconds"] for event in record.attempts)), "second"),
    ]
    return {
        "title": f"{record.name}: report of a federated run",
        "facts": ", ".join(str(fact) for fact in facts if fact),
        "status": status,
        "tone": tones.get(status, "open"),
        "reason": (record.end or {}).get("reason"),
        "kind": kinds.get(str(record.source), "data of hospitals"),
        "synthetic": record.synthetic,
        "metric": word(record.metric),
        "test_mode": record.setting("privacy", "test_seed") is not None,
    }


def privacy_facts(record: Record) -> dict[str, Any]:
    """The mechanism in a sentence, and what was spent."""
    mechanism = str(record.setting("privacy", "mechanism") or "none")
    rows: list[list[Any]] = []
    if mechanism != "none":
        spent = max(record.epsilons.values(), default=math.nan)
        rows = [
            ["mechanism", mechanism],
            ["what is hidden", MECHANISMS[mechanism].unit if mechanism in MECHANISMS else "not known"],
            ["epsilon so far", "not told" if math.isnan(spent) else f"{spent:.3g}"],
            ["budget of the run", f"{record.setting('privacy', 'epsilon'):g}"],
            ["delta", record.setting("privacy", "delta") or "from the number of patients"],
            ["clip", record.setting("privacy", "clip")],
        ]
    by_site = {}
    for site in record.sites:
        told = [line["epsilon"] for _, line in record.lines[site] if line.get("epsilon") is not None]
        if told:
            by_site[site] = f"{max(told):.3g}"
    return {"said": SAID.get(mechanism, mechanism), "rows": rows, "by_site": [*by_site.items()]}


def config_rows(record: Record) -> list[tuple[str, str]]:
    """Every setting of the run, by its whole name."""
    return [(name, shown(value)) for name, value in flat(record.run)]


def flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their whole names.

    >>> list(flat({"seed": 0, "train": {"lr": 0.1}}))
    [('seed', 0), ('train.lr', 0.1)]
    """
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def shown(value: Any) -> str:
    """A value as a command line has it.

    >>> shown(None), shown(True), shown([1, 2])
    ('null', 'true', '[1,2]')
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{','.join(map(shown, value))}]" if isinstance(value, list | tuple) else str(value)


def versions_of(record: Record) -> list[tuple[str, str]]:
    """Versions and hashes, as the run noted them when it began."""
    start = next((event for event in record.events if event["event"] in ("start", "resume")), {})
    known = {**(start.get("versions") or record.description.get("versions") or {})}
    rows = [(name, str(version)) for name, version in known.items()]
    ids = {key: record.description.get(key) or start.get(key) for key in ("run_id", "config_hash", "code_sha256")}
    rows += [(name.replace("_", " "), str(value)) for name, value in ids.items() if value]
    if record.run.get("init"):
        rows.append(("weights it began with, SHA-256", str(record.run["init"])))
    if record.model:
        rows.append((f"weights after round {record.model['round']}, SHA-256", record.model["sha256"]))
    return rows


def provenance_rows(record: Record) -> list[list[Any]]:
    """The runs that the weights come from, oldest first; weights of a bare file are a row without a run."""
    rows = []
    for link in record.provenance or []:
        patients, privacy = link.get("patients") or {}, link.get("privacy") or {}
        epsilon = privacy.get("epsilon")
        spent = "" if epsilon is None else f", epsilon {epsilon:.3g}"
        test_mode = ", NOT PRIVATE: test mode" if privacy.get("test_mode") else ""
        rows.append(
            [
                str(link.get("run_id") or link.get("origin") or "not known")[:12],
                link.get("ended"),
                f"{link['round']} of {link['rounds']}" if "round" in link else None,
                link.get("sites"),
                patients.get("training"),
                patients.get("validation"),
                f"{privacy.get('mechanism') or 'not known'}{spent}{test_mode}",
                str(link.get("init_sha256") or "random weights" if "run_id" in link else "not known")[:16],
                str(link.get("weights_sha256"))[:16],
            ]
        )
    return rows


def repeat_command(record: Record) -> str | None:
    """The command that makes the same run again; None: an older version did not note it."""
    words = record.description.get("overrides")
    if words is None:
        return None
    # The folder that is there is refused, and is not what makes the run.
    return command_line(
        *(["gliofed-simulate"] if record.source else ["gliofed-server", "run"]), *_without(words, "out")
    )


def _without(words: list[str], key: str) -> list[str]:
    return [word for word in words if not word.startswith(f"{key}=")]
