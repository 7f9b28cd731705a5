"""Answers on what the figures are worth: against what a hospital has alone, and when they are shown."""

import math
from collections.abc import Iterator

from gliofed.server.report.page.answer import MANY, NAMED, Answer, Tone, listed
from gliofed.server.report.page.record import Record, number, word
from gliofed.shared.events import Event
from gliofed.shared.mechanisms import MECHANISMS
from gliofed.shared.wording import quantity


def is_better(record: Record) -> Answer:
    """Whether each site gains over what it could train by itself."""
    question = "Is it better than what each hospital has alone?"
    if record.comparison is None:
        how = "No model was trained on one site's data alone"
        cure = (
            "to measure it, add data.test=0.2 'baselines=[pooled,local]' to the command"
            if record.source
            else "so far only a simulation does that"
        )
        return Answer(question, "Not measured", "open", [f"{how}; {cure}."])
    sentences, (gains, name) = [], (record.comparison.get("gains") or {}, word(record.comparison["metric"]))
    sign = -1 if record.comparison.get("lower_is_better") else 1
    better = [site for site, gain in gains.items() if sign * end(gain, "low" if sign > 0 else "high") > 0]
    worse = [site for site, gain in gains.items() if sign * end(gain, "high" if sign > 0 else "low") < 0]
    unclear = [site for site in gains if site not in better and site not in worse]
    for site, gain in sorted(gains.items(), key=lambda each: sign * number(each[1]["value"]))[:NAMED]:
        sentences.append(
            f"{site}: {name} {number(gain['value']):+.3f}{interval(gain)} against its own model (n={gain['patients']})."
        )
    if len(gains) > NAMED:
        sentences.append(f"The other {quantity(len(gains) - NAMED, 'site')} gained more than these; all are below.")
    if pooled := record.comparison.get("over_pooled"):
        n = max((m["patients"] for m in (record.comparison.get("overall") or {}).values()), default=None)
        share = f"{100 * number(pooled['value']):.1f} % of a model that was trained on all data at one place"
        sentences.append(f"Together they reach {share} (n={n}).")
    models = (record.comparison.get("models") or {}).values()
    if any(model.get("private") for model in models):
        sentences.append("The federation was private; the models it is compared with were trained without privacy.")
    if unclear:
        sentences.append(f"The interval holds 0 at {listed(unclear)}: the difference may be chance.")
    verdict = f"At {len(better)} of {quantity(len(gains), 'site')}" if gains else "Not measured"
    tone: Tone = "open" if not gains else "bad" if worse else "good" if not unclear else "warn"
    return Answer(question, verdict, tone, sentences)


def is_shown(record: Record) -> Answer:
    """What must be said when the figures are shown."""
    found = [*_of_data(record), *_of_figures(record), *_of_privacy(record)]
    doubts = [sentence for sentence, doubtful in found if doubtful]
    verdict = "Not as a result of medicine" if record.synthetic else "With what is said here" if doubts else "Yes"
    return Answer("May this be shown?", verdict, "warn" if doubts else "good", [sentence for sentence, _ in found])


def _of_data(record: Record) -> Iterator[tuple[str, bool]]:
    """A sentence, and whether it is a doubt."""
    kinds = {"phantom": "phantoms, which gliofed makes up", "mock": "made-up shapes"}
    if record.source in kinds:
        yield f"The data are {kinds[record.source]}: the figures say nothing about patients.", True
    else:
        whose = "a folder of this machine, dealt to simulated sites" if record.source else "the hospitals' own"
        yield f"The data are {whose}.", False


def _of_figures(record: Record) -> Iterator[tuple[str, bool]]:
    if record.final is None:
        yield "There is no figure of the model to show.", True
        return
    part, _, _, patients = record.final
    what = f"{part} patients, whose number is not known" if patients is None else quantity(patients, f"{part} patient")
    if part == "test":
        yield f"The figures are of {what}, who were in no training and no choice.", False
    else:
        yield (
            f"The figures are of {what}. Whoever chose a round or a setting by them needs others: data.test=0.2.",
            True,
        )
    if patients is not None and patients < MANY:
        yield f"With {quantity(patients, 'patient')}, small differences may be chance.", True
    best = (record.test or {}).get("best_round")
    if best is not None:
        yield f"The best model is that of round {best}, which was selected by its validation patients.", False


def _of_privacy(record: Record) -> Iterator[tuple[str, bool]]:
    privacy, budget = record.setting("privacy", "mechanism") or "none", record.setting("privacy", "epsilon")
    if privacy == "none":
        yield "The training was not private: who has the model may find out who was in it.", False
    elif record.setting("privacy", "test_seed") is not None:
        yield "NOT PRIVATE: privacy.test_seed is set, so anybody can compute the noise.", True
    else:
        spent = max(record.epsilons.values(), default=math.nan)
        unit = MECHANISMS[privacy].unit if privacy in MECHANISMS else "patient"
        told = "not known yet" if math.isnan(spent) else f"{spent:.3g}"
        yield f"Differential privacy of a {unit} ({privacy}): epsilon {told} of {number(budget):.3g}.", False


def interval(found: Event) -> str:
    """The ends of an interval, where it has some."""
    low, high = found.get("low"), found.get("high")
    return "" if low is None or high is None else f" ({low:+.3f} to {high:+.3f})"


def end(found: Event, side: str) -> float:
    """One end of an interval; NaN, which is on no side of 0, where it has none."""
    return number(found.get(side))
