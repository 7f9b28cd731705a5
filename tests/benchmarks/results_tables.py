"""What docs/results.md compares: its tables, their rows and what each row is trained with."""

from dataclasses import dataclass

from tests.benchmarks.federation_results import PATIENTS, WORDS
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
    references: bool = False
    """Whether it has the models of one run with baselines, and not several runs."""

    @property
    def heads(self) -> tuple[str, ...]:
        """Of the columns that name a row."""
        return ("epsilon", "sites", "patients a site") if self.study else ("model",)

    def cells(self, row: str) -> tuple[str, ...]:
        """What those columns say."""
        return self.study.rows[row].cells if self.study else (row,)


def grading_rows() -> dict[str, tuple[str, ...]]:
    """Ours, then as published, which takes about four times as long a step; so cnn3 for about as many seconds, and for
    half of them."""
    encoders = ("cnn1", "cnn2", "cnn3")
    ours = {name: (f"experiment=cnn_lstm_{name}",) for name in encoders}
    published = {f"{name} as published": (*ours[name], "model.as_published=true") for name in encoders}
    return (
        ours
        | published
        | {
            "cnn3 for as many seconds": (*ours["cnn3"], "rounds=30"),
            "cnn3 for half the seconds": (*ours["cnn3"], "rounds=15"),
        }
    )


TABLES = {
    "federation": Table(
        "Is it better together? Eight uneven sites",
        f"Phantoms at 4 mm, {', '.join(map(str, PATIENTS))} patients, each site with a scanner of its own. The "
        "federation, one model on all patients (pooled) and one at each site (own) took the same samples; see "
        "[simulate.md](simulate.md#is-it-better-together). Figures are over the test patients of all seeds "
        "together, so their intervals are about patients; how much another training would differ, the seeds show.",
        "federation",
        {"federation": WORDS},
        ("dice", "dice_et", "dice_tc", "dice_wt"),
        references=True,
    ),
    "segmentation": Table(
        "Tumour segmentation: U-Net and LSTM-U-Net",
        "Phantoms at 4 mm, two sites of 30 patients, the same steps. LSTM-U-Net makes its mask three times, which "
        "takes longer; so the U-Net is trained once more, for about as many seconds.",
        "segmentation",
        {
            "unet": ("experiment=unet_segmentation",),
            "unet for longer": ("experiment=unet_segmentation", "rounds=22"),
            "lstm_unet": ("experiment=lstm_unet_segmentation",),
        },
        ("dice", "dice_et", "dice_tc", "dice_wt", "jaccard", "recall", "precision", "hd95"),
        (("lstm_unet", "unet"), ("lstm_unet", "unet for longer")),
    ),
    "grading": Table(
        "Grading: the three encoders, ours and as published",
        "Phantoms at 4 mm, two sites of 100 patients, the same steps. As published: BatchNorm, plain average pooling, "
        "no strided first convolution, which takes longer; so our cnn3 is trained twice more, for about as many "
        "seconds and for half of them.",
        "grading",
        grading_rows(),
        ("auc", "accuracy", "sensitivity", "specificity", "f1", "loss"),
        (
            ("cnn3", "cnn2"),
            ("cnn2", "cnn1"),
            *((f"cnn{n}", f"cnn{n} as published") for n in (1, 2, 3)),
            ("cnn3 for as many seconds", "cnn3 as published"),
            ("cnn3 for half the seconds", "cnn3 as published"),
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
