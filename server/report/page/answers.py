"""The first screen of a report: answers in words to what whoever runs a federation asks, each figure with its n."""

import math
from collections import Counter
from collections.abc import Callable
from statistics import fmean

from gliofed.server.report.page.answer import MANY, NAMED, Answer, after_round, listed, of, shortened
from gliofed.server.report.page.standing import is_better, is_shown
from gliofed.server.report.record import Record, number
from gliofed.server.report.sentences import in_rounds, rests
from gliofed.server.report.table import patients_behind
from gliofed.shared.events import Event
from gliofed.shared.wording import quantity

LITTLE = 0.01
"""Of a metric between 0 and 1: a smaller change is called none. Of another, this share of its first value."""
ABSENT = {"status": "absent", "reason": None}
"""The line of a site in a round before it was there."""


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
    recent = known[-1 - max(1, len(known) // 3)]
    step = after - float(recent["global"][record.metric])
    if len(known) >= 4 and gain > little:
        still = "still changes" if abs(step) > little else "has levelled off"
        sentences.append(f"It {still}: by {step:+.3f} since round {recent['round']}.")
    if (patients := patients_behind(last)) is not None and patients < MANY:
        sentences.append(f"With {quantity(patients, 'patient')}, small differences may be chance.")
    others, agree = _other_sites(first, last, record)
    sentences += others
    if gain > little and agree:
        return Answer(question, "Yes", "good", sentences)
    losses = [number(event["global"].get("loss")) for event in (first, last)]
    if gain <= little and losses[1] < losses[0] - LITTLE * abs(losses[0]):
        what = f"The validation loss fell, from {losses[0]:.3f} to {losses[1]:.3f}, so it learns something"
        why = "; a model that finds nothing scores well on patients who lack a region" if record.parts else ""
        return Answer(question, "Not clear", "warn", [*sentences, f"{what}{why}."])
    if not agree:
        return Answer(question, "Not clear", "warn", sentences)
    return Answer(question, *(("No, it got worse", "bad") if gain < -little else ("No", "warn")), sentences)


def _other_sites(first: Event, last: Event, record: Record) -> tuple[list[str], bool]:
    """A sentence where not the same sites are behind two events, and whether those in both went the same way."""
    both = [  # those behind the figure over all: a refused site has no say in it
        {
            site: line
            for site, line in event["sites"].items()
            if line.get("evaluate") and (line["status"] == "counted" or rests(line))
        }
        for event in (first, last)
    ]
    scores = [{s: number(line["evaluate"].get(record.metric)) for s, line in lines.items()} for lines in both]
    if both[0].keys() == both[1].keys():
        return [], True
    sign = -1 if record.lower_is_better else 1
    changes = [sign * (scores[1][site] - scores[0][site]) for site in both[0].keys() & both[1].keys()]
    better, known = sum(change > 0 for change in changes), sum(map(math.isfinite, changes))
    went = sign * (last["global"][record.metric] - first["global"][record.metric])
    agree = 2 * better > known if went > 0 else 2 * better < known
    sentence = f"Not the same sites were measured: of {quantity(known, 'site')} in both rounds {better} improved."
    return [sentence], agree


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
        known = "The worst site is" if len(order) > 1 else "The only site with a figure is"
        sentences.append(f"{known} {order[0]}: {name} {low:.3f} ({of(few, people)}).")
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
    verdict = " and ".join(where) or ("one site alone cannot tell" if order else "not known")
    return Answer(question, verdict[0].upper() + verdict[1:], "open", sentences)


def is_all_used(record: Record) -> Answer:
    """Whether every site and every case entered the model."""
    question = "Was all data used?"
    if not record.rounds:
        none = ["No round has a result."]
        return Answer(question, "No", "bad", none) if record.end else Answer(question, "Not known yet", "open", none)
    never, missed, rested = _absences(record)
    sites, whole = quantity(len(record.sites), "site"), len(record.sites) - len(never) - len(missed)
    sentences = [
        f"{whole if never or missed else 'All'}{' of' * bool(never or missed)} {sites} counted in every round"
        f"{' that drew them' * rested}."
    ]
    sentences += shortened(never, "site like this", "sites like this")
    if len(missed) <= NAMED:
        sentences += [f"{site} did not count in {in_rounds(out)}." for site, out in missed.items()]
    else:
        most = max(missed, key=lambda site: len(missed[site]))
        rounds = f"{len(missed[most])} of {len(record.attempts)}"
        sentences.append(f"{len(missed)} sites did not count in some rounds; {most} missed the most, {rounds}.")
    if failed := {event["round"] for event in record.attempts} - {event["round"] for event in record.rounds}:
        sentences.append(f"Nothing counted in {in_rounds(failed)}, without a result.")
    unseen, private = _unseen(record), (record.setting("privacy", "mechanism") or "none") != "none"
    sentences += shortened(unseen, "site like this", "sites like this")
    left_out = {site: codes for site in record.sites if (codes := record.left_out(site))}
    cases = sum(sum(codes.values()) for codes in left_out.values())
    if cases:
        each = ", ".join(f"{sum(codes.values())} at {site}" for site, codes in [*left_out.items()][:NAMED])
        sentences.append(f"The sites left out {quantity(cases, 'case')} of their own: {each}.")
    elif private:
        sentences.append("The run is private, so sites need not tell which cases they left out.")
    sentences.append(_patients_told(record))
    if never or cases or unseen:
        return Answer(question, "No", "bad" if never else "warn", sentences)
    if missed or failed:
        return Answer(question, "Yes, but not in every round", "warn", sentences)
    return Answer(question, "Yes, as far as the sites tell" if private else "Yes", "good", sentences)


def _absences(record: Record) -> tuple[list[str], dict[str, set[int]], bool]:
    """Sites that never counted, each in a sentence; rounds that others missed; whether chance let any site rest."""
    never, missed, rested = list[str](), dict[str, set[int]](), False
    for site in record.sites:
        lines = {event["round"]: event["sites"].get(site) or ABSENT for event in record.rounds}
        drawn = {round: line for round, line in lines.items() if not rests(line)}
        rested = rested or len(drawn) < len(lines)
        out = {round for round, line in drawn.items() if line["status"] != "counted"}
        if out == drawn.keys():
            reasons = [
                str(line["reason"] or line["status"]) for line in (drawn or lines).values() if line is not ABSENT
            ]
            why = Counter(reasons).most_common(1)[0][0] if reasons else "it was only there in rounds without a result"
            never.append(f"{site} ({of(record.patients(site), 'training patient')}) counted in no round: {why}.")
        elif out:
            missed[site] = out
    return never, missed, rested


def _unseen(record: Record) -> list[str]:
    """Sites whose steps took fewer samples than they have patients, each in a sentence."""
    steps, batch = record.setting("train", "steps"), record.setting("train", "batch")
    if not steps or not batch or record.setting("privacy", "mechanism") == "dp_sgd":  # it draws by chance
        return []
    sentences = []
    for site in record.sites:
        counted = sum((event["sites"].get(site) or ABSENT)["status"] == "counted" for event in record.rounds)
        samples, patients = counted * steps * batch, record.patients(site)
        if patients is not None and 0 < samples < patients:
            people = quantity(patients, "training patient")
            sentences.append(f"{site} took {quantity(samples, 'sample')} in all, fewer than its {people}.")
    return sentences


def _patients_told(record: Record) -> str:
    """How many patients the sites train on, as far as they told."""
    told = [patients for site in record.sites if (patients := record.patients(site)) is not None]
    if not told:
        return "No site told how many training patients it has."
    whose = "The sites" if len(told) == len(record.sites) else f"{len(told)} of {len(record.sites)} sites"
    return f"{whose} told {quantity(sum(told), 'training patient')}."


QUESTIONS: tuple[Callable[[Record], Answer], ...] = (is_learning, is_weak, is_all_used, is_better, is_shown)
