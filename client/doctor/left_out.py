"""Whether so many cases of the frozen cohort stay out that the hospital must hear of it."""

from collections import Counter

from gliofed.client.doctor.consent import read_consent
from gliofed.client.doctor.inspection import Inspection
from gliofed.client.doctor.judgement import judge
from gliofed.client.doctor.manifest import belongs, read_manifest
from gliofed.shared.data.cases import Case
from gliofed.shared.data.names import MASK, MODALITIES
from gliofed.shared.left_out import in_words, many
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.tasks import TASKS, Task
from gliofed.shared.wording import quantity


def left_out_warnings(site: SiteConfig) -> list[str]:
    """Say of each task that the site may be asked for how many cases it would leave out, where they are many.

    Only numbers, no names; nothing where no cohort is frozen. A task or a modality that no case has files for is not
    missed here: a run that needs it is declined as a whole. Raises DataError, unreadable.
    """
    work = site.folder.root
    if (manifest := read_manifest(work)) is None:
        return []
    consent, warnings = read_consent(work), []
    entries = [entry for entry in manifest.entries if belongs(site, consent, entry.case.patient)]
    cases, inspected = [entry.case for entry in entries], [Inspection(entry.facts) for entry in entries]
    modalities = sorted(set(MODALITIES.values()) & {name for case in cases for name in (*case.images, *case.twice)})
    for name in site.policy.tasks or TASKS:
        task = TASKS[name]
        if any(_is_for(case, task) for case in cases):
            some = False if site.policy.complete else None
            reports = judge(cases, inspected, site.check, modalities, task, some=some)
            errors = [[each.code for each in report.findings if each.severity == "error"] for report in reports]
            left_out = Counter(codes[0] for codes in errors if codes)
            if many(left_out, len(cases) - (count := left_out.total())):
                of = quantity(len(cases), "case")
                what = f"{count} of {of} {'is' if count == 1 else 'are'} left out of {name} ({in_words(left_out)})"
                masked = task.label is None and "missing_modality" in left_out and not site.policy.complete
                but = ", but runs with data.missing=mask use cases that lack some images" if masked else ""
                warnings.append(f"{work}: {what}{but}; gliofed-client check names them")
    return warnings


def _is_for(case: Case, task: Task) -> bool:
    return case.value(task.label) is not None if task.label else case.mask is not None or MASK in case.twice
