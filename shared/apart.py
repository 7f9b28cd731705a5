"""What cannot go together in a run."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from gliofed.shared.algorithms import ALGORITHMS, kept_of, returned_of, sent_of
from gliofed.shared.algorithms.fedbn import HOME
from gliofed.shared.algorithms.optimizers import ADAMW, OPTIMIZERS, USUAL, rate_of
from gliofed.shared.tasks import TASKS

if TYPE_CHECKING:
    from gliofed.shared.config import RunConfig

LEAST_RATE = 1e-30

Sentence = str | Callable[["RunConfig"], str]

APART: tuple[tuple[Callable[["RunConfig"], bool], Sentence], ...] = (
    (
        lambda run: run.private and run.train.steps is None,
        "train.epochs with a private update: the number of steps would tell the number of patients; give train.steps",
    ),
    (
        lambda run: _dp_sgd(run) and _has_classes(run) and run.train.class_weights == "balanced",
        "train.class_weights=balanced with privacy=dp_sgd: that counts patients; give weights, as [1.0,0.5], or null",
    ),
    (
        lambda run: _dp_sgd(run) and bool(run.model.as_published),
        "model.as_published=true with privacy=dp_sgd: its BatchNorm mixes patients; leave it out",
    ),
    (
        lambda run: run.algorithm.name == "fedbn" and run.model.name == "cnn_lstm" and not run.model.as_published,
        "algorithm=fedbn with model=cnn_lstm: it has no norms that could stay at a site; use algorithm=fedavg, or "
        "model.as_published=true",
    ),
    (
        lambda run: _dp_sgd(run) and ALGORITHMS[run.algorithm.name].corrects,
        "an algorithm that corrects steps with privacy=dp_sgd: its private step has no room for it; use "
        "algorithm=fedavg or fedbn",
    ),
    (
        lambda run: run.algorithm.name == "scaffold" and (run.optimizer.name, run.optimizer.momentum) != ("sgd", 0),
        "algorithm=scaffold without plain SGD: its control variates are mean gradients of SGD steps; use optimizer=sgd "
        "with optimizer.momentum=0",
    ),
    (
        # Private steps are SGD of their own, and of these each site takes as many.
        lambda run: (
            run.algorithm.name == "fednova"
            and not _dp_sgd(run)
            and (run.optimizer.name, run.optimizer.momentum) != ("sgd", 0)
        ),
        "algorithm=fednova without plain SGD: with momentum or AdamW the last steps of a round count less, and it "
        "divides by their number; use optimizer=sgd with optimizer.momentum=0",
    ),
    (
        lambda run: ALGORITHMS[run.algorithm.name].scales and run.train.precision == "fp16",
        "train.precision=fp16 with an algorithm that scales updates by their steps: it may skip some; use fp32 or bf16",
    ),
    (
        lambda run: run.optimizer.moments != "fresh" and run.optimizer.name != "adamw" and not run.optimizer.momentum,
        lambda run: (
            f"optimizer.moments={run.optimizer.moments} with optimizer.momentum=0: there are none to keep; give "
            "optimizer.moments=fresh, or a momentum, of which 0.9 is usual"
        ),
    ),
    (
        lambda run: run.privacy.mechanism in ("local_update", "central") and bool(returned_of(run)),
        "groups beside the update with privacy=local_update or central: their noise is for the update alone; use "
        "algorithm=fedavg, fedprox or fedbn, and optimizer.moments=fresh or kept",
    ),
    (
        lambda run: run.privacy.mechanism == "central" and ALGORITHMS[run.algorithm.name].scales,
        "an algorithm that scales updates with privacy=central: its clip is for updates as they come; use "
        "algorithm=fedavg, fedprox or fedbn",
    ),
    (
        lambda run: _dp_sgd(run) and run.optimizer not in (USUAL, ADAMW),
        "what is set of optimizer with privacy=dp_sgd: a private step has its own SGD; use privacy.lr, momentum and "
        "schedule and leave it out, and give optimizer.schedule=constant where an experiment sets another",
    ),
    (
        lambda run: _dp_sgd(run) and bool({*sent_of(run), *returned_of(run), *kept_of(run)} - {HOME}),
        "an algorithm with groups of its own with privacy=dp_sgd: its private step makes none; use algorithm=fedavg or "
        "fedbn",
    ),
    (
        lambda run: (
            not OPTIMIZERS[run.optimizer.name].scale_free
            and run.train.clip is None
            and run.fold.clip is not None
            and run.privacy.mechanism == "none"
        ),
        "optimizer=sgd with train.clip=null: nothing bounds an honest update, as fold.clip must; give train.clip",
    ),
    (
        lambda run: bool(run.optimizer.momentum) and run.optimizer.name == "adamw",
        "optimizer.momentum with adamw: it has none of that name; use optimizer=sgd or muon, or leave it out",
    ),
    (
        lambda run: run.strategy.name == "nesterov" and not run.strategy.momentum,
        "strategy=nesterov with strategy.momentum=0: there is none to look ahead by; give 0.9, or use strategy=fedavg",
    ),
    (
        lambda run: run.algorithm.name == "scaffold" and rate_of(run, run.rounds) < LEAST_RATE,
        "algorithm=scaffold with a rate that falls below 1e-30: it divides by that; give a larger train.lr, or a "
        "smaller optimizer.power",
    ),
    (
        lambda run: bool(_odd(run)),
        lambda run: (
            f"train.augment.dropout_of: {_odd(run)[0]} is none of data.modalities={','.join(run.data.modalities)}; "
            "name only those"
        ),
    ),
    (
        lambda run: len({*run.train.augment.dropout_of}) < len(run.train.augment.dropout_of),
        lambda run: f"train.augment.dropout_of={','.join(run.train.augment.dropout_of)}: names one twice",
    ),
    (
        lambda run: bool(run.train.augment.dropout_of) and not run.train.augment.dropout,
        "train.augment.dropout_of with train.augment.dropout=0: nothing would be left out; give a probability, as 0.2",
    ),
    (
        lambda run: run.train.augment.dropout > 0 and len(run.data.modalities) == 1,
        "train.augment.dropout with one of data.modalities: one image always stays, so nothing would be left out; "
        "give train.augment.dropout=0, or read more images",
    ),
    (
        lambda run: run.optimizer.warmup >= run.rounds,
        lambda run: (
            f"optimizer.warmup={run.optimizer.warmup} with rounds={run.rounds}: the learning rate would never be "
            "whole; give fewer"
        ),
    ),
    (
        lambda run: _dp_sgd(run) and run.train.precision == "fp16",
        "train.precision=fp16 with privacy=dp_sgd: its loss scale follows the gradients of all; use fp32, bf16 or auto",
    ),
    (
        lambda run: run.privacy.mechanism == "central" and run.fold.name != "mean",
        "a fold other than mean with privacy=central: its noise is for a sum; use fold=mean",
    ),
    (
        lambda run: run.fold.name != "mean" and 0 < run.round.training(len(run.round.expected)) < 3,
        "a fold other than mean with fewer than three sites, or a round.sample of fewer: there is no majority; use "
        "fold=mean",
    ),
    (
        lambda run: run.privacy.mechanism == "central" and not run.round.expected,
        "round.expected=[] with privacy=central: the mean is over a fixed number of sites; name them",
    ),
    (
        lambda run: run.privacy.mechanism == "central" and run.round.sample is not None,
        "round.sample with privacy=central: the mean is over a fixed number of sites; leave it out",
    ),
    (
        lambda run: _draws(run) and run.round.training(len(run.round.expected)) < run.round.quorum,
        lambda run: (
            f"round.quorum={run.round.quorum} with round.sample={run.round.sample}: more sites than it draws, so "
            "that no round could have a result; give a smaller quorum"
        ),
    ),
)
"""What is refused, and the sentence that says so."""


def _dp_sgd(run: "RunConfig") -> bool:
    return run.privacy.mechanism == "dp_sgd"


def _odd(run: "RunConfig") -> list[str]:
    return [name for name in run.train.augment.dropout_of if name not in run.data.modalities]


def _draws(run: "RunConfig") -> bool:
    return run.round.sample is not None and bool(run.round.expected)


def _has_classes(run: "RunConfig") -> bool:
    label = TASKS[run.task].label
    return label is not None and bool(label.classes)
