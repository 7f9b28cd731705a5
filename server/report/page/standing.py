"""Answers on what the figures are worth: against what a hospital has alone, and when they are shown."""

import math
from collections.abc import Iterator

from gliofed.server.report.page.answer import MANY, NAMED, Answer, Tone, after_round, listed
from gliofed.server.report.record import Record, number, word
from gliofed.shared.comparison import FEDERATED, FEWEST, POOLED, verdict
from gliofed.shared.events import Event
from gliofed.shared.mechanisms import MECHANISMS
from gliofed.shared.wording import quantity


def is_better(record: Record) -> Answer:
    """Whether each site gains over what it could train by itself."""
    question = "Is it better than what each hospital has alone?"
    if record.comparison is None:
        return Answer(question, "Not measured", "open", [_why_not_compared(record)])
    name, less = word(record.comparison["metric"]), bool(record.comparison.get("lower_is_better"))
    found = {**(record.comparison.get("gains") or {})}
    gains = {site: gain for site, gain in found.items() if math.isfinite(number(gain["value"]))}
    sign = -1 if less else 1
    verdicts = {site: verdict(gain, less) for site, gain in gains.items()}
    better, worse, unclear, few = (
        [site for site, said in verdicts.items() if said == each] for each in ("better", "worse", "open", "few")
    )
    missing = sorted({*record.sites, *found} - gains.keys()) if found else []
    sentences = [f"Of {name}, less is better."] if less else []
    for site, gain in sorted(gains.items(), key=lambda each: sign * number(each[1]["value"]))[:NAMED]:
        sentences.append(
            f"{site}: {name} {number(gain['value']):+.3f}{interval(gain)} against its own model (n={gain['patients']})."
        )
    if len(gains) > NAMED:
        sentences.append(f"The other {quantity(len(gains) - NAMED, 'site')} did better than these; all are below.")
    sentences += _against_pooled(record.comparison, name, less)
    models = (record.comparison.get("models") or {}).values()
    if any(model.get("private") for model in models):
        sentences.append("The federation was private; the models it is compared with were trained without privacy.")
    if record.comparison.get("given_weights"):
        sentences.append("Every model began with the given weights, so none is of one site's data alone.")
    if unclear:
        sentences.append(f"The interval holds 0 at {listed(unclear)}: the difference may be chance.")
    if few:
        those = f"Fewer than {FEWEST} test patients at {listed(few)}"
        sentences.append(f"{those}: whatever the interval, the difference may be chance.")
    if missing:
        sentences.append(
            f"Not compared at {listed(missing)}: no test patients with a score, or no update that counted."
        )
    if not found:
        sentences.append("No model was trained on one site's data alone.")
    of_all = quantity(len(gains), "compared site") if missing else quantity(len(gains), "site")
    tone: Tone = "open" if not gains else "bad" if worse else "warn" if unclear or few or missing else "good"
    return Answer(question, f"At {len(better)} of {of_all}" if gains else "Not measured", tone, sentences)


def _why_not_compared(record: Record) -> str:
    if (record.description.get("simulation") or {}).get("baselines"):
        return "The models of baselines= are trained and compared when the run has ended."
    cure = (
        "to measure it, add data.test=0.2 'baselines=[pooled,local]' to the command"
        if record.source
        else "each hospital can do it for itself, with gliofed-client compare"
    )
    return f"No model was trained on one site's data alone; {cure}."


def _against_pooled(comparison: Event, name: str, less: bool) -> list[str]:
    """How the federated model does in percent of the pooled one, where both have a score."""
    pooled = comparison.get("over_pooled") or {}
    if not math.isfinite(number(pooled.get("value"))):
        return []
    n = max((model["patients"] for model in (comparison.get("overall") or {}).values()), default=None)
    low, high = pooled.get("low"), pooled.get("high")
    ends = "" if low is None or high is None else f" ({100 * low:.1f} to {100 * high:.1f})"
    reach = f"Their {name} is" if less else "Together they reach"
    whose = "that of a model" if less else "a model"
    share = f"{100 * number(pooled['value']):.1f} %{ends}"
    said = [f"{reach} {share} of {whose} that was trained on all data at one place (n={n})."]
    models = comparison.get("models") or {}
    federated, reference = ((models.get(model) or {}).get("samples") for model in (FEDERATED, POOLED))
    if federated is not None and reference is not None and federated != reference:
        said.append(f"The federation took {quantity(federated, 'sample')}, that model {reference}.")
    return said


def is_shown(record: Record) -> Answer:
    """What must be said when the figures are shown."""
    found = [*_of_data(record), *_of_figures(record), *_of_privacy(record)]
    doubts = [sentence for sentence, doubtful in found if doubtful]
    verdict = "Not as a medical result" if record.synthetic else "With what is said here" if doubts else "Yes"
    verdict = "Only to those who may see these patients" if record.slices and not record.synthetic else verdict
    return Answer("May this be shown?", verdict, "warn" if doubts else "good", [sentence for sentence, _ in found])


def _of_data(record: Record) -> Iterator[tuple[str, bool]]:
    """A sentence, and whether it is a doubt."""
    kinds = {"phantom": "phantoms, which gliofed makes up", "mock": "made-up shapes"}
    if record.source in kinds:
        yield f"The data are {kinds[record.source]}: the figures say nothing about patients.", True
    else:
        whose = "a folder of this machine, dealt to simulated sites" if record.source else "the hospitals' own"
        yield f"The data are {whose}.", False
        if record.slices:
            yield "This page shows slices of these patients' scans.", True


def _of_figures(record: Record) -> Iterator[tuple[str, bool]]:
    if record.final is None:
        yield "There is no figure of the model to show.", True
        return
    part, _, overall, patients = record.final
    if not math.isfinite(number(overall.get(record.metric))):
        yield f"{record.metric_name} of the model is not known.", True
    what = f"{part} patients, whose number is not known" if patients is None else quantity(patients, f"{part} patient")
    if part == "test":
        yield f"The figures are of {what}, who were in no training and no choice of this run.", False
    else:
        tested = record.setting("data", "test") is not None
        others = "those of test patients, whom no site has measured" if tested else "others: data.test=0.2"
        yield f"The figures are of {what}. Whoever chose a round or a setting by them needs {others}.", True
        at, last = record.measured[-1], max((event["round"] for event in record.rounds), default=0)
        if at["round"] < last:
            yield f"They were measured {after_round(at)}; the last model is that of round {last}.", True
    if record.setting("init"):
        yield "The weights that the run began with may have been trained on these patients, in an earlier run.", True
    if patients is not None and patients < MANY:
        yield f"With {quantity(patients, 'patient')}, small differences may be chance.", True
    best = (record.test or record.best or {}).get("best_round" if record.test else "round")
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
