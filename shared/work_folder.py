"""A hospital's work folder: what it keeps between requests. One of an earlier version goes on, so no name changes."""

from gliofed.shared.files import Below, KeptFolder


class WorkFolder(KeptFolder):
    """Where each file of a work folder is; its audit log is `gliofed.shared.audit.audit_file`."""

    cohort = Below("cohort", "Folder of the manifest")
    manifest = Below("cohort/manifest.json", "Every case that was frozen")
    consent = Below("consent.json", "Who withdrew, and the key of the pseudonyms")
    patients_lock = Below("patients.lock", "Held by who reads, or removes, what there is of patients")
    checks = Below("checks", "Folder of reports, a folder each: DATE/TIME")
    cache = Below("cache", "Folder of prepared scans, an entry each")
    trained = Below("trained", "Folder with whom each run trained with")
    outbox = Below("outbox", "Folder of replies that are sent again as they are")
    state = Below("state", "Folder of what is kept of runs between their rounds, a folder each")
    ledger = Below("ledger", "Folder of the privacy ledger")
    smaller_patch = Below("smaller_patch.json", "What fitted into memory")
    page = Below("site-report.html", "What became of the site's part in runs; a withdrawal removes it")
    compare = Below("compare", "Folder of comparisons, a `CompareFolder` each; a withdrawal removes them")
    log = Below("site.log", "What went wrong, in full")
    old_log = Below("site.old.log", "What the log was before it was too long")


class CompareFolder(KeptFolder):
    """A comparison of a federated model with the hospital's own; nothing of it leaves."""

    of = Below("of.json", "Hash of what the own model follows from")
    lock = Below(".lock", "Held by the command that is at work")
    comparison = Below("compare.json", "Both models on the test patients; names nobody")
    scores = Below("scores.csv", "Both models on each test patient, by name")
