"""A run's folder, at the server or of a simulation. One of an earlier version goes on, so no name changes."""

from gliofed.shared.files import Below, KeptFolder


class ModelFolder(KeptFolder):
    """The model that a run leaves."""

    description = Below("model.json", "Task, model and data, the run's id and the round")
    weights = Below("model.safetensors", "Its tensors, in fp32")
    provenance = Below("provenance.json", "The runs that its weights came out of, oldest first")


class BaselineFolder(ModelFolder):
    """A model that is trained beside a simulated federation, to compare with."""

    checkpoints = Below("checkpoints", "Folder of weights and moments of the last rounds; removed in the end")
    training = Below("training.json", "Samples, steps and seconds that it took; once it is there, the model is done")


class RunFolder(KeptFolder):
    """Where each file of a run is; its audit log is `gliofed.shared.audit.audit_file`."""

    description = Below("run.json", "What the run is; never changes")
    code = Below("code.fab", "The code bundle that it began with, and keeps")
    wanted = Below("wanted.json", "run or stop; the commands write it")
    submission = Below("submission.json", "What became of it at Flower; `start` writes it")
    nodes = Below("nodes.json", "Which site each of Flower's nodes is; `start` writes it")
    agreed = Below("agreed.json", "The agreed ceiling of each site's number of patients; `start` writes it")
    log = Below("server.log", "What its server printed")
    history = Below("history.jsonl", "What happened, and whether it ended; the rounds write it, as all below")
    progress = Below("progress.json", "Where the round stands; removed in the end")
    anew = Below("anew.json", "Sites that start anew in the next round; `gliofed-server anew` writes it")
    checkpoints = Below("checkpoints", "Folder of weights, optimiser and event of the last rounds")
    spool = Below("spool", "Folder of the replies of this round")
    refused = Below("refused", "Folder of replies that the gate refused")
    model = Below("model", "A `ModelFolder`: of the last round")
    best = Below("best", "A `ModelFolder`: of the round with the best validation, where it can be known")
    init = Below("init", "A `ModelFolder`, of the weights that it began with, where they were given")
    plots = Below("plots", "Folder of figures, as PNG and SVG")
    page = Below("report.html", "The report, drawn anew after every round")


class SimulationFolder(RunFolder):
    """What a simulated run has beside."""

    lock = Below(".lock", "Held while it runs")
    data = Below("data", "Folder of the scans that were written for it")
    sites = Below("sites", "Folder of the hospitals' work folders")
    shares = Below("sites.json", "Numbers of patients of each site, without a name")
    shares_picture = Below("sites.png", "The same, drawn")
    cohorts = Below("cohorts.json", "Names of the patients of each site")
    profiles = Below("profiles.json", "What a partition measured of each scan")
    comparison = Below(
        "comparison.json", "Every model on every site's test patients, with references; names no patient"
    )
    baselines = Below("baselines", "Folder of a `BaselineFolder` for each model of baselines=")
    scores = Below("baselines/scores.csv", "Each model on each test patient, by name")
    slices = Below("slices.json", "Slices of some patients, for the report")
    attacks = Below("attacks", "Folder of results, a folder for each attack")
