"""The first screen of a report: answers in words to what whoever runs a federation asks, each figure with its n."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from gliofed.server.report.record import NOT_ASKED, Record, number, word
from gliofed.server.report.sentences import in_rounds
from gliofed.server.report.table import patients_behind
from gliofed.shared.events import Event
from gliofed.shared.mechanisms import MECHANISMS
from gliofed.shared.wording import quantity

LITTLE = 0.01
"""Of a metric between 0 and 1: a smaller change is called none. Of another, this share of its first value."""
MANY = 30
"""Patients below which a small difference may well be chance, and it is said."""
NAMED = 6
"""Sites that a sentence names, at most."""

Tone = Literal["good", "warn", "bad", "open"]


@dataclass(frozen=True)
class Answer:
    """One question, answered."""

    question: str
    verdict: str
    """A few words."""
    tone: Tone
    sentences: list[str]


def answers(record: Record) -> list[Answer]:
    """Answer every question, as far as the run is known by now."""
    return [question(record) for question in QUESTIONS]


def is_learning(record: Record) -> Answer:
    """Whether the model gets better from round to round."""
    question, name = "Is it learning?", record.metric_name
    known = [event for event in record.measured if math.isfinite(number(event["global"].get(record.metric)))]
    if not known:
        return Answer(question, "Not known yet" if not record.end else "Not known", "open", _losses(record))
    first, last = known[0], known[-1]
    before, after = (float(event["global"][record.metric]) for event in (first, last))
    people = of(patients_behind(last), "validation patient")
    if first is last:
        return Answer(question, "Too early to say", "open", [f"{name} is {after:.3f} {after_round(last)} ({people})."])
    gain = (before - after) if record.lower_is_better else (after - before)
    little = LITTLE if max(abs(before), abs(after)) <= 1 else LITTLE * abs(before)
    rose = "did not change much" if abs(after - before) <= little else "rose" if after > before else "fell"
    sentences = [
        f"{name} {rose}: {before:.3f} {after_round(first)} ({of(patients_behind(first), 'patient')}), "
        f"{after:.3f} {after_round(last)} ({people})."
    ]
    best = (min if record.lower_is_better else max)(known, key=lambda event: event["global"][record.metric])
    top = float(best["global"][record.metric])
    if abs(top - after) > little:
        sentences.append(f"Its best was {top:.3f}, {after_round(best)} ({of(patients_behind(best), 'patient')}).")
    recent = [event for event in known if event["round"] >= last["round"] - max(1, len(known) // 3)]
    step = after - float(recent[0]["global"][record.metric])
    if len(known) >= 4 and gain > little:
        still = "still changes" if abs(step) > little else "has levelled off"
        sentences.append(f"It {still}: by {step:+.3f} since round {recent[0]['round']}.")
    if (patients := patients_behind(last)) is not None and patients < MANY:
        sentences.append(f"With {quantity(patients, 'patient')}, small differences may be chance.")
    verdict, tone = (
        ("Yes", "good") if gain > little else ("No, it got worse", "bad") if gain < -little else ("No", "warn")
    )
    return Answer(question, verdict, tone, sentences)  # type: ignore[arg-type]


def _losses(record: Record) -> list[str]:
    """What is known without metrics: how far the training losses have come."""
    rounds = {
        event["round"]: [
            line["train"]["loss"]
            for line in event["sites"].values()
            if line["status"] == "counted" and math.isfinite(number((line["train"] or {}).get("loss")))
        ]
        for event in record.rounds
    }
    rounds = {round: losses for round, losses in rounds.items() if losses}
    sentences = ["No site has told metrics of its validation patients."] if record.rounds else ["No round is finished."]
    if rounds:
        first, last = min(rounds), max(rounds)
        ends = [
            f"{fmean(rounds[each]):.3f} in round {each} ({quantity(len(rounds[each]), 'site')})"
            for each in (first, last)
        ]
        sentences.append(f"The training loss, averaged over sites, was {' and '.join(dict.fromkeys(ends))}.")
    return sentences


def is_weak(record: Record) -> Answer:
    """Which site and which region have the lowest score."""
    question, name = "Where is it weak?", record.metric_name
    if record.final is None:
        return Answer(question, "Not known", "open", ["No site has told any metric of its patients."])
    of_what, lines, overall, patients = record.final
    people, sentences = f"{of_what} patient", []
    scores = {
        site: (number(line["evaluate"].get(record.metric)), line.get("evaluated"))
        for site, line in lines.items()
        if line.get("evaluate") and math.isfinite(number(line["evaluate"].get(record.metric)))
    }
    order = sorted(scores, key=lambda site: scores[site][0], reverse=record.lower_is_better)
    if order:
        (low, few), (high, many) = scores[order[0]], scores[order[-1]]
        sentences.append(f"The worst site is {order[0]}: {name} {low:.3f} ({of(few, people)}).")
        if len(order) > 1:
            sentences[-1] = sentences[-1][:-1] + f"; the best is {order[-1]}: {high:.3f} ({of(many, people)})."
        if few is not None and few < 5:
            sentences.append(f"{order[0]} has so few patients that this may be chance.")
    parts = {part: number(overall.get(f"{record.metric}_{part.lower()}")) for part in record.parts}
    if parts := {part: value for part, value in parts.items() if math.isfinite(value)}:
        shown = ", ".join(f"{part} {value:.3f}" for part, value in sorted(parts.items(), key=lambda each: each[1]))
        sentences.append(f"By region, over all sites ({of(patients, people)}): {shown}.")
    none = [site for site in record.sites if site not in scores and lines.get(site, {}).get("evaluated") == 0]
    if none:
        sentences.append(f"No {people}s at {listed(none)}.")
    if silent := [site for site in record.sites if site not in scores and site not in none]:
        sentences.append(f"No figure from {listed(silent)}.")
    where = [f"at {order[0]}"] if len(order) > 1 else []
    worst = (max if record.lower_is_better else min)(parts, key=lambda part: parts[part], default=None)
    where += [f"on {worst}"] if worst and len(parts) > 1 else []
    return Answer(question, " and ".join(where).capitalize() if where else "Not known", "open", sentences)


def is_all_used(record: Record) -> Answer:
    """Whether every site and every case entered the model."""
    question = "Was all data used?"
    if not record.attempts:
        return Answer(question, "Not known yet", "open", ["No round is finished."])
    sentences, never, sometimes = [], [], []
    for site in record.sites:
        asked = {round: line for round, line in record.lines(site) if line["status"] not in NOT_ASKED}
        counted = {round for round, line in asked.items() if line["status"] == "counted"}
        if asked and not counted:
            why = Counter(str(line["reason"] or line["status"]) for line in asked.values()).most_common(1)[0][0]
            never.append(f"{site} (n={known_patients(record, site) or 'not known'}) counted in no round: {why}.")
        elif out := asked.keys() - counted:
            sometimes.append(f"{site} did not count in {in_rounds(set(out))}.")
    whole = len(record.sites) - len(never) - len(sometimes)
    sites = quantity(len(record.sites), "site")
    sentences.append(
        f"{whole} of {sites} counted whenever they were asked."
        if never or sometimes
        else f"All {sites} counted whenever they were asked."
    )
    sentences += shortened([*never, *sometimes], "such site")
    left_out = {site: codes for site in record.sites if (codes := last_left_out(record, site))}
    cases = sum(sum(codes.values()) for codes in left_out.values())
    if cases:
        each = ", ".join(f"{sum(codes.values())} at {site}" for site, codes in [*left_out.items()][:NAMED])
        sentences.append(f"The sites left out {quantity(cases, 'case')} of their own: {each}.")
    total = sum(known_patients(record, site) or 0 for site in record.sites)
    sentences.append(f"{quantity(total, 'training patient')} told by the sites, all rounds together.")
    if never or sometimes or cases:
        return Answer(question, "No", "bad" if never else "warn", sentences)
    return Answer(question, "Yes", "good", sentences)


def is_better(record: Record) -> Answer:
    """Whether each site gains over what it could train by itself."""
    question = "Is it better than what each hospital has alone?"
    if record.comparison is None:
        how = (
            "add baselines=pooled,local to the command"
            if record.source
            else "each hospital can, with gliofed-client compare"
        )
        return Answer(
            question, "Not measured", "open", [f"No model was trained on one site's data alone; to measure it, {how}."]
        )
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
    if unclear:
        sentences.append(f"The interval holds 0 at {listed(unclear)}: the difference may be chance.")
    verdict = f"At {len(better)} of {quantity(len(gains), 'site')}" if gains else "Not measured"
    tone: Tone = "open" if not gains else "bad" if worse else "good" if not unclear else "warn"
    return Answer(question, verdict, tone, sentences)


def is_shown(record: Record) -> Answer:
    """What must be said when the figures are shown."""
    sentences, doubts = [], 0
    kinds = {"phantom": "phantoms, which gliofed makes up", "mock": "made-up shapes"}
    if record.source in kinds:
        doubts += 1
        sentences.append(f"The data are {kinds[record.source]}: the figures say nothing about patients.")
    else:
        whose = "a folder of this machine, dealt to simulated sites" if record.source else "the hospitals' own"
        sentences.append(f"The data are {whose}.")
    if record.final is None:
        doubts += 1
        sentences.append("There is no figure of the model to show.")
    elif record.final[0] == "test":
        sentences.append(
            f"The figures are of {of(record.final[3], 'test patient')}, who were in no training and no choice."
        )
        if record.test and record.test.get("best_round") is not None:
            sentences.append(
                f"The best model is that of round {record.test['best_round']}, selected by validation patients."
            )
    else:
        doubts += 1
        what = of(record.final[3], "validation patient")
        sentences.append(
            f"The figures are of {what}; whoever chose a round or a setting by them needs others: give data.test=0.2."
        )
    privacy, budget = record.setting("privacy", "mechanism") or "none", record.setting("privacy", "epsilon")
    if privacy == "none":
        sentences.append("The training was not private: who has the model may find out who was in it.")
    elif record.setting("privacy", "test_seed") is not None:
        doubts += 1
        sentences.append("NOT PRIVATE: privacy.test_seed is set, so anybody can compute the noise.")
    else:
        spent = max(epsilons(record).values(), default=math.nan)
        unit = MECHANISMS[privacy].unit if privacy in MECHANISMS else "patient"
        told = "not known yet" if math.isnan(spent) else f"{spent:.3g}"
        sentences.append(f"Differential privacy of a {unit} ({privacy}): epsilon {told} of {number(budget):.3g}.")
    verdict = (
        "Not as a result of medicine" if record.synthetic else "With what is said here" if doubts else "Yes, with its n"
    )
    return Answer("May this be shown?", verdict, "warn" if doubts else "good", sentences)


QUESTIONS: tuple[Callable[[Record], Answer], ...] = (is_learning, is_weak, is_all_used, is_better, is_shown)


def epsilons(record: Record) -> dict[int, float]:
    """Epsilon after each round: of the sum, or of the site that has spent most."""
    found = {}
    for event in record.attempts:
        told = [line["epsilon"] for line in event["sites"].values() if line.get("epsilon") is not None]
        if (epsilon := event.get("epsilon", max(told, default=None))) is not None:
            found[event["round"]] = float(epsilon)
    return found


def known_patients(record: Record, site: str) -> int | None:
    """Training patients of a site, as it told last."""
    told = [line["patients"] for _, line in record.lines(site) if line.get("patients") is not None]
    return int(told[-1]) if told else None


def last_left_out(record: Record, site: str) -> dict[str, int]:
    """Cases that a site left out, by code, as it told last."""
    told = [line["left_out"] for _, line in record.lines(site) if line.get("left_out")]
    return dict(told[-1]) if told else {}


def of(patients: int | None, singular: str) -> str:
    """How many are behind a figure.

    >>> of(3, "test patient"), of(None, "patient")
    ('n=3 test patients', 'n not known')
    """
    return "n not known" if patients is None else f"n={quantity(patients, singular)}"


def after_round(event: Event) -> str:
    """When a figure was measured."""
    return "before the first round" if event["event"] == "initial" else f"after round {event['round']}"


def listed(names: list[str]) -> str:
    """Names in a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"]), listed(list("abcdefgh"))
    ('a', 'a, b and c', 'a, b, c, d, e, f and 2 more')
    """
    shown, rest = names[:NAMED], len(names) - NAMED
    shown = [*shown, f"{rest} more"] if rest > 0 else shown
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def shortened(sentences: list[str], what: str) -> list[str]:
    """The first few, and how many more there are."""
    rest = len(sentences) - NAMED
    return [*sentences[:NAMED], *([f"And {quantity(rest, what)} more; see below."] if rest > 0 else [])]


def interval(found: Event) -> str:
    """The ends of an interval, where it has some."""
    low, high = found.get("low"), found.get("high")
    return "" if low is None or high is None else f" ({low:+.3f} to {high:+.3f})"


def end(found: Event, side: str) -> float:
    """One end of an interval; NaN, which is on no side of 0, where it has none."""
    return number(found.get(side))
