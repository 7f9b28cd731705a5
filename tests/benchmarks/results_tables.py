"""What docs/results.md compares: its tables, their rows and what each row is trained with."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from tests.benchmarks.federation_results import ADAMW, EQUAL_ROWS, MUON, PATIENTS, UNEVEN, UNEVEN_ROWS
from tests.benchmarks.private_results import GRADING, GRADING_SAYS, SEGMENTATION, SEGMENTATION_SAYS, Study


@dataclass(frozen=True)
class Table:
    """One comparison: the same data, steps and seeds for every row."""

    title: str
    says: str
    data: str
    """Folder of its phantoms; one a seed."""
    rows: dict[str, tuple[str, ...]]
    """What differs, as overrides of gliofed-simulate."""
    metrics: tuple[str, ...]
    better: tuple[tuple[str, str], ...] = ()
    """Pairs of rows: the first is expected to be better than the second, by the first metric."""
    study: Study | None = None
    """Of rows with and without privacy."""
    as_long: Mapping[str, str] = field(default_factory=dict)
    """Rows that are trained for as many seconds as another row: the more rounds, the longer a step of that takes."""
    references: Literal["whole", "rows"] | None = None
    """Of runs with baselines: whether everything about the only row is told, or a line about each."""

    @property
    def heads(self) -> tuple[str, ...]:
        """Of the columns that name a row."""
        return ("epsilon", "sites", "patients a site") if self.study else ("model",)

    def cells(self, row: str) -> tuple[str, ...]:
        """What those columns say."""
        return self.study.rows[row].cells if self.study else (row,)


def grading_rows() -> dict[str, tuple[str, ...]]:
    """Ours, then as published, whose step takes 2.3 to 3 times as long by the machine, with what changes patches; so
    cnn3 also for 20 rounds, which take no longer than its 8, and for 10, which take about half as long."""
    encoders = ("cnn1", "cnn2", "cnn3")
    words = ("data.patients=200", "data.test=0.6")
    ours = {name: (f"experiment=cnn_lstm_{name}", *words) for name in encoders}
    published = {f"{name} as published": (*ours[name], "model.as_published=true") for name in encoders}
    return (
        ours
        | published
        | {
            "cnn3, 20 rounds": (*ours["cnn3"], "rounds=20"),
            "cnn3, 10 rounds": (*ours["cnn3"], "rounds=10"),
        }
    )


ABSENT = (
    "model=unet", "data=phantom", "data.patients=[36,30,27,27]", "data.high_grade=0.2", "data.validation=0.05",
    "data.test=0.5", "rounds=12", "round.evaluate_every=0", "train.steps=16",
)  # fmt: skip
"""Of phantoms of these grades about half have no enhancing tumour."""
BY_REGION = "train.foreground_by=region"


SERIES = (
    "data=phantom", "data.visits=4", "data.window=2", "data.patients=64", "sites=2", "data.validation=0.1",
    "data.test=0.5", "train.steps=40", *MUON, "optimizer.schedule=cosine", "round.evaluate_every=5",
)  # fmt: skip
"""An even number of visits: windows of two then end with the last visit, on which change is measured."""


def series_rows() -> dict[str, tuple[str, ...]]:
    """Both read two visits a step: a patient's two in a row, or one of each of two patients.

    The U-Net has so many more rounds that it takes as long: at seed 0, 20 of its rounds took 144 s and 18 of the
    CLSTM-UNet3D's 166 s.
    """
    unet = (*SERIES, "model=unet", "train.batch=2", "rounds=23")
    clstm = (*SERIES, "model=clstm_unet3d", "train.batch=1", "rounds=18")
    return {"unet": unet, "clstm_unet3d": clstm, "clstm_unet3d without difference": (*clstm, "model.difference=false")}


MISSING = (
    "model=unet", "data=phantom", "sites=4", "data.patients=45", "data.validation=0.07", "data.test=0.66", "rounds=24",
    "round.evaluate_every=0", "train.steps=16", *MUON, "optimizer.schedule=cosine",
)  # fmt: skip
NO_FLAIR = ("data.missing=mask", "lacking={site-2:[flair]}")
TWICE, LEFT_OUT = "train.steps=32", "train.augment.dropout_of=[flair]"


def pair(title: str, says: str, data: str, *words: str) -> Table:
    """U-Net and LSTM-U-Net, with `words` beside their experiments."""
    words = ("data.patients=80", "data.test=0.7", *words)
    unet, lstm_unet = (f"experiment={name}_segmentation" for name in ("unet", "lstm_unet"))
    return Table(
        title,
        f"{says} A step of LSTM-U-Net takes longer; so the U-Net is trained once more, for more rounds, which "
        "take the same CPU time.",
        data,
        {"unet": (unet, *words), "unet for as many seconds": (unet, *words), "lstm_unet": (lstm_unet, *words)},
        ("dice", "dice_et", "dice_tc", "dice_wt", "jaccard", "recall", "precision", "hd95"),
        (("lstm_unet", "unet"), ("lstm_unet", "unet for as many seconds")),
        as_long={"unet for as many seconds": "lstm_unet"},
    )


TABLES = {
    "federation": Table(
        "Is it better together? Eight uneven sites",
        f"Phantoms at 4 mm, {', '.join(map(str, PATIENTS))} patients, each site with a scanner of its own; 12 rounds. "
        "The federation, one model on all patients (pooled) and one at each site (own) took the same samples, with "
        "Muon, whose momentum is averaged over the sites; see "
        "[simulate.md](simulate.md#is-it-better-together). Figures are over the test patients of all seeds "
        "together, so their intervals are about patients; how much another training would differ, the seeds show.",
        "federation",
        {"federation": UNEVEN},
        ("dice", "dice_et", "dice_tc", "dice_wt"),
        references="whole",
    ),
    "uneven": Table(
        "And for longer? The same eight sites",
        "As above, with 48 rounds.",
        "federation",
        UNEVEN_ROWS,
        ("dice",),
        references="rows",
    ),
    "equal": Table(
        "As fast as in one place? Four equal sites",
        "Phantoms at 4 mm, four sites of 45 patients, 54 in all train and 114 are tested at each seed; demo U-Net, 16 "
        "steps of 2 patches a round, `codec=mixed` unless the row says otherwise; pooled and own took the same "
        "samples. Bytes are down and up together. Muon's momentum starts anew in each round, unless the row says that "
        "it is averaged, which is the default. The row of AdamW with fp32 is plain FedAvg. Pooled data can "
        "fall behind, as after 48 rounds: its rate is as constant as the sites', and no average over sites calms it.",
        "equal",
        EQUAL_ROWS,
        ("dice",),
        references="rows",
    ),
    "segmentation": pair(
        "Tumour segmentation: U-Net and LSTM-U-Net",
        "Phantoms at 4 mm, two sites of 80 patients, of whom 36 in all train and about 112 test; the same steps.",
        "segmentation",
    ),
    "segmentation_2mm": pair(
        "The same at 2 mm",
        "As above, but for the phantoms and patches of 48^3.",
        "segmentation-2mm",
        "data.resolution=2.0",
        "data.patch=[48,48,48]",
    ),
    "absent": Table(
        "Enhancing tumour where half of the patients have none",
        "Phantoms at 4 mm, four sites of 36, 30, 27 and 27 patients, a fifth of them HGG, so that about half have no "
        "enhancing tumour; 12 rounds of 16 steps. A model that never finds a region scores 1 for each patient without "
        "it: dice_et_present is over those who have it.",
        "absent",
        {
            "Muon": (*ABSENT, *MUON),
            "Muon, by region": (*ABSENT, *MUON, BY_REGION),
            "AdamW, moments averaged": (*ABSENT, *ADAMW),
            "AdamW, moments fresh": (*ABSENT, *ADAMW, "optimizer.moments=fresh"),
        },
        ("dice_et_present", "dice_et", "dice_tc", "dice_wt", "dice"),
        (("Muon, by region", "Muon"), ("Muon", "AdamW, moments averaged")),
    ),
    "recipe": Table(
        "The recipe for BraTS: our U-Net and MONAI's DynUNet",
        "`experiment=brats_small`, phantoms at 2 mm, two sites of 24 patients, and the same recipe for the network of "
        "nnU-Net at the same width, for as many seconds, by the CPU time of a step.",
        "recipe",
        {
            "unet": ("experiment=brats_small",),
            "monai_dynunet": ("experiment=brats_small", "model=monai_dynunet"),
        },
        ("dice", "dice_et", "dice_tc", "dice_wt", "hd95"),
        (("unet", "monai_dynunet"),),
        as_long={"monai_dynunet": "unet"},
    ),
    "series": Table(
        "Series of visits: CLSTM-UNet3D and the U-Net frame by frame",
        "Phantoms at 4 mm with four visits and a course of their own (growth, response, new lesions, artefacts); two "
        "sites of 64 patients, half of them to test, about the same CPU time. dice is the mean over all visits, "
        "dice_change that of the last in the voxels that changed since the one before; see "
        "[models.md](models.md#metrics).",
        "series",
        series_rows(),
        ("dice_change", "dice_change_et", "dice_change_tc", "dice_change_wt", "dice", "hd95"),
        (("clstm_unet3d", "unet"), ("clstm_unet3d", "clstm_unet3d without difference")),
    ),
    "missing": Table(
        "A site without FLAIR",
        "Phantoms at 4 mm, four sites of 45 patients, each with a scanner of its own, of whom about 30 are tested. "
        "Site-2 lacks FLAIR; where no site has it (with --full), its own figure is about what can be seen without. "
        "With twice the steps the others lack it too, in a third or half of their samples, so they see as many with "
        "FLAIR as in the first row, or more. 24 rounds, with a rate that falls.",
        "missing",
        {
            "every image": MISSING,
            "site-2 without FLAIR": (*MISSING, *NO_FLAIR),
            "every image, twice the steps": (*MISSING, TWICE),
            **{
                f"site-2 without FLAIR, others in {share}, twice the steps": (
                    *MISSING,
                    *NO_FLAIR,
                    TWICE,
                    LEFT_OUT,
                    f"train.augment.dropout={chance}",
                )
                for share, chance in {"a third": 0.33, "half": 0.5}.items()
            },
            "FLAIR nowhere": (*MISSING, "data.modalities=[t1,t1ce,t2]"),
        },
        ("dice", *(f"dice at site-{number}" for number in range(1, 5))),
    ),
    "grading": Table(
        "Grading: the three encoders, ours and as published",
        "Phantoms at 4 mm, two sites of 200 patients, of whom 120 in all train and about 240 test; the same steps, "
        "patches changed in the same ways, the same rate, which falls, and weight decay. As published: "
        "BatchNorm, plain average pooling, no strided first convolution, which takes longer; so our cnn3 is trained "
        "twice more, for more rounds than these 8.",
        "grading",
        grading_rows(),
        ("auc", "accuracy", "sensitivity", "specificity", "f1", "loss"),
        (
            ("cnn3", "cnn2"),
            ("cnn2", "cnn1"),
            *((f"cnn{n}", f"cnn{n} as published") for n in (1, 2, 3)),
            ("cnn3, 20 rounds", "cnn3 as published"),
            ("cnn3, 10 rounds", "cnn3 as published"),
        ),
    ),
    "privacy": Table(
        "Tumour segmentation with differential privacy",
        SEGMENTATION_SAYS,
        "private-segmentation",
        SEGMENTATION.overrides,
        ("dice", "dice_tc", "dice_wt", "hd95"),
        study=SEGMENTATION,
    ),
    "private_grading": Table(
        "Grading with differential privacy",
        GRADING_SAYS,
        "private-grading",
        GRADING.overrides,
        ("auc", "accuracy", "sensitivity", "specificity", "loss"),
        study=GRADING,
    ),
}
ONLY_FULL: dict[str, Collection[str]] = {
    "uneven": TABLES["uneven"].rows,
    "segmentation_2mm": TABLES["segmentation_2mm"].rows,
    "private_grading": TABLES["private_grading"].rows,
    "equal": ("Muon, 12 rounds, fp32", "Muon, 24 rounds of half as many steps"),
    "grading": ("cnn1 as published", "cnn2 as published"),
    "absent": ("AdamW, moments fresh",),
    "series": ("clstm_unet3d without difference",),
    "missing": ("site-2 without FLAIR, others in half, twice the steps", "FLAIR nowhere"),
    "privacy": [row for row, setting in SEGMENTATION.rows.items() if (setting.sites, setting.patients) != (8, 32)],
}
"""Rows that are trained with --full, or where their table is named; the others take about three hours on two cores,
by the sum of their seconds."""


def usual_rows(name: str) -> list[str]:
    """Of a table, those that are trained without --full; where there are none, all."""
    rows = TABLES[name].rows
    return [row for row in rows if row not in ONLY_FULL.get(name, ())] or [*rows]
