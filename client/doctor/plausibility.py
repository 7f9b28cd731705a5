"""Whether images are what they are named, the mask lies on the tumour, and its labels mean what the scheme says.

docs/data.md says where the thresholds come from.
"""

from gliofed.client.doctor.contrast import Contrasts
from gliofed.client.doctor.findings import MASK, Warned
from gliofed.shared.data.labels import LABELS, schemes_with

UNLIKE = 0.25
"""So much more must other pairs correlate than {T1, T1ce} and {FLAIR, T2}."""
FLUID = 0.03
"""The share of T2 that is brightest: fluid, where there is no tumour."""
FLUID_BRIGHTER = 0.2
"""So much brighter must that be in FLAIR than the reverse."""
LESION = 0.8
"""Least rank of a whole tumour in FLAIR."""
ACROSS = 0.1
"""So much brighter in FLAIR must the mirrored place be."""
ENHANCED = 0.9
"""Least rank of what took up the contrast agent."""
BRIGHTER = 0.05
"""So much brighter must that be in T1 than in T1ce."""
DIM = 0.6
"""Least rank of enhancing tumour in T1ce."""
OTHER_BRIGHTER = 0.1
"""So much brighter in T1ce than enhancing tumour must another label be."""

FOUR = ("flair", "t1", "t1ce", "t2")


def implausible(seen: Contrasts) -> list[Warned]:
    """The first thing that is wrong: modalities_swapped, mask_misplaced or label_scheme.

    It would also show in what is looked at after it. Mock volumes are no heads.
    """
    if _is_anatomy(seen):
        for look in (_other_pairs, _flair_and_t2, _misplaced, _t1_and_t1ce, _other_scheme):
            if found := look(seen):
                return [found]
    return []


def unchecked(seen: Contrasts) -> dict[str, str]:
    """Code -> why it, or some of it, could not be looked for."""
    if not _is_anatomy(seen):
        return {}
    why: dict[str, str] = {}
    if missing := [name for name in FOUR if name not in seen.samples]:
        why["modalities_swapped"] = f"no {', '.join(missing)} on the case's grid"
    elif seen.labels is None:
        why["modalities_swapped"] = "T1 and T1ce, and FLAIR and T2, are told apart by a mask"
    if seen.labels is not None:
        for code, name in (("mask_misplaced", "flair"), ("label_scheme", "t1ce")):
            if name not in seen.ranks:
                other = f"no {name} on the mask's grid"
                why[code] = f"{name} does not show a brain alone" if name in seen.samples else other
    return why


def _is_anatomy(seen: Contrasts) -> bool:
    return "wt" in LABELS.get(seen.scheme, {})


def _other_pairs(seen: Contrasts) -> Warned | None:
    """T1 and T1ce show the same tissue bright, and so do FLAIR and T2."""
    if not seen.samples.keys() >= set(FOUR) or (alike := seen.correlation(FOUR)) is None:
        return None
    flair, t1, t1ce, t2 = range(4)
    usual = alike[t1, t1ce] + alike[flair, t2]
    by_flair = alike[flair, t1] + alike[t1ce, t2], "t1 is like flair, and t1ce like t2", "t1 and t2, or flair and t1ce"
    by_t2 = alike[t1, t2] + alike[flair, t1ce], "t1 is like t2, and t1ce like flair", "t1 and flair, or t1ce and t2"
    more, what, which = max(by_flair, by_t2)
    if more - usual <= UNLIKE:
        return None
    message = f"{what} (correlations {more:.2f}, of t1 with t1ce and flair with t2 {usual:.2f}); swap {which}"
    return "modalities_swapped", FOUR, message, b""


def _flair_and_t2(seen: Contrasts) -> Warned | None:
    """Fluid is bright in T2 and dark in FLAIR; so is a tumour in neither, which the mask must leave out."""
    if seen.labels is None or not seen.samples.keys() >= {"flair", "t2"}:
        return None
    in_flair, in_t2 = seen.brightest("t2", "flair", FLUID), seen.brightest("flair", "t2", FLUID)
    if in_flair is None or in_t2 is None or in_flair - in_t2 <= FLUID_BRIGHTER:
        return None
    message = (
        f"what is brightest in flair is brighter in t2 than {in_t2:.0%} of the brain, and what is brightest in t2 is "
        f"brighter in flair than {in_flair:.0%}; swap the two if fluid is dark in the file that is named t2"
    )
    return "modalities_swapped", ("flair", "t2"), message, b""


def _misplaced(seen: Contrasts) -> Warned | None:
    if seen.lesion is None:
        return None
    here, there = seen.sides or (0.0, 0.0)
    if there - here > ACROSS:
        message = (
            f"in flair the marked tumour is brighter than {here:.0%} of the rest of the brain, and the same place on "
            f"the other side brighter than {there:.0%}; is the mask mirrored?"
        )
    elif seen.lesion < LESION:
        message = (
            f"in flair the marked tumour is brighter than only {seen.lesion:.0%} of the rest of the brain; is it the "
            "mask of this patient, and of this visit?"
        )
    else:
        return None
    return "mask_misplaced", (MASK,), message, b""


def _t1_and_t1ce(seen: Contrasts) -> Warned | None:
    """What takes up the contrast agent is bright in T1ce alone."""
    t1, t1ce = (max(seen.ranks.get(name, {}).values(), default=0.0) for name in ("t1", "t1ce"))
    if "t1ce" not in seen.ranks or t1 < ENHANCED or t1 - t1ce <= BRIGHTER:
        return None
    message = (
        f"the tumour's brightest part is brighter in t1 than {t1:.0%} of the brain, and in t1ce than {t1ce:.0%}; swap "
        "the two files if T1 shows the contrast agent"
    )
    return "modalities_swapped", ("t1", "t1ce"), message, b""


def _other_scheme(seen: Contrasts) -> Warned | None:
    if not (what := _contradiction(seen, seen.scheme)) or seen.labels is None:
        return None
    others = [name for name in schemes_with(seen.labels.surface) if "wt" in LABELS[name]]
    fitting = [name for name in others if not _contradiction(seen, name)]
    cure = f"is it in {' or '.join(fitting)}? Declare that in `labels`" if fitting else "no other scheme fits"
    return "label_scheme", (MASK,), f"in scheme {seen.scheme} {what}; {cure}, or is it another patient's mask?", b""


def _contradiction(seen: Contrasts, scheme: str) -> str:
    """How the labels are not what the scheme says; empty where they can be."""
    regions, ranks = LABELS[scheme], seen.ranks.get("t1ce", {})
    enhancing = {label: value for label, value in ranks.items() if label in regions.get("et", ())}
    brightest, top = max(ranks.items(), key=lambda each: each[1], default=(0, 0.0))
    if enhancing:
        label, own = max(enhancing.items(), key=lambda each: each[1])
        if own < DIM or top - own > OTHER_BRIGHTER:
            more = "" if brightest == label else f", label {brightest} than {top:.0%}"
            return f"label {label} is enhancing tumour, but brighter in t1ce than only {own:.0%} of the brain{more}"
    elif top > ENHANCED:
        return f"label {brightest} does not enhance, but is brighter in t1ce than {top:.0%} of the brain"
    if seen.labels is None or "tc" not in regions:
        return ""
    (core,), (edema,) = regions["tc"] - regions["et"], regions["wt"] - regions["tc"]
    inner, outer = seen.labels.surface.get(core), seen.labels.surface.get(edema)
    if inner is not None and outer is not None and inner > outer:
        return (
            f"label {core} is core, which lies inside, but {inner:.0%} of it touch what is not marked, and {outer:.0%} "
            f"of label {edema}, edema"
        )
    return ""
