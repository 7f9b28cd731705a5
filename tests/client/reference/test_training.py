"""What a reference model is trained on, and how."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_run import composed
from torch import Tensor
from torch.testing import assert_close

from gliofed.client.reference.scoring import open_site
from gliofed.client.reference.training import Baseline, Trainer, train_all
from gliofed.server.round.model import initial_model
from gliofed.shared.algorithms.optimizers import rate_of
from gliofed.shared.codec import travelling, weights_from_bytes
from gliofed.shared.config import RunConfig
from gliofed.shared.data.samples import Batch
from gliofed.shared.parse import ConfigError
from gliofed.shared.run_folder import BaselineFolder, SimulationFolder
from gliofed.shared.tasks import TASKS
from gliofed.simulation.baselines.references import baselines_of
from gliofed.simulation.settings import parse_settings
from gliofed.simulation.simulate import simulate
from gliofed.simulation.sites import make_sites

CPU = torch.device("cpu")
SIZES = {"site-1": 2, "site-2": 3, "site-3": 7}
WORDS = ("data.patients=[2,3,7]", "sites=3", "data.validation=0", "train.steps=5", "data.test=0", "rounds=2")
"""Without a fraction for validation or test all patients train."""


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Trainer]:
    """A trainer of three sites of 2, 3 and 7 patients, whose patches are their whole scans."""
    root = tmp_path_factory.mktemp("sites")

    def of(*words: str) -> Trainer:
        values = composed(*WORDS, *words, f"data.root={root / 'data'}")
        run, settings = parse_settings(values)
        made = make_sites(values["data"], run, settings, root / "run", lambda done, total: None)
        cohorts = {site.name: open_site(site, run).cohort.train for site in made}
        return Trainer(run, "run", cohorts, travelling(initial_model(run)), CPU, threads=1)

    return of


def seen(batches: Iterator[Batch], number: int) -> Counter[bytes]:
    """How often each image is in the first batches; a patch is a patient's whole scan, so how often each patient."""
    taken = [next(batches) for _ in range(number)]
    assert {len(batch.image) for batch in taken} == {2}
    return Counter(image.numpy().tobytes() for batch in taken for image in batch.image)


ROUNDS = {1: [*SIZES], 2: ["site-1", "site-3"]}
"""site-2 did not count in the second."""


def test_pooled_draws_each_patient_as_often_as_the_sites_do(make: Callable[..., Trainer]) -> None:
    """Five steps of two are ten samples a site: of the site of two patients each five times, of that of seven once or
    twice. Batches mix the sites: else the last steps would be those of one hospital.
    """
    trainer = make()
    pooled, *local = baselines_of(("local", "pooled"), ROUNDS)
    assert pooled.rounds == {1: ("site-1", "site-2", "site-3"), 2: ("site-1", "site-3")}
    for round, steps in ((1, 15), (2, 10)):
        of_sites = {one.key: seen(trainer.drawn(one, round), 5) for one in local if round in one.rounds}
        assert seen(trainer.drawn(pooled, round), steps) == sum(of_sites.values(), Counter())
        for site, counts in of_sites.items():
            low, rest = divmod(10, SIZES[site])
            assert sorted(counts.values()) == [low] * (SIZES[site] - rest) + [low + 1] * rest, site
    owners = {image: site for site in SIZES for image in seen(trainer.drawn(Baseline(site, {1: (site,)}), 1), 5)}
    batches = trainer.drawn(pooled, 1)
    mixed = [len({owners[image.numpy().tobytes()] for image in next(batches).image}) for _ in range(15)]
    assert max(mixed) == 2


def test_equal_total_samples(make: Callable[..., Trainer]) -> None:
    """With epochs a site takes as many steps as it has patients for: 1, 2 and 4 batches of two."""
    trainer = make("train.steps=null", "train.epochs=1")
    steps = {one.name: trainer.steps(one) for one in baselines_of(("pooled", "local"), ROUNDS)}
    assert steps == {"pooled": 7 + 5, "local site-1": 2, "local site-2": 2, "local site-3": 8}


def plainly(trainer: Trainer, baseline: Baseline) -> dict[str, Tensor]:
    """The oracle: one loop of one optimiser over the rounds' batches."""
    run: RunConfig = trainer.run
    model = initial_model(run).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, weight_decay=run.train.weight_decay)
    for round in baseline.rounds:
        optimizer.param_groups[0]["lr"] = rate_of(run, round)
        batches = trainer.drawn(baseline, round)
        for _ in range(sum(number for _, number in trainer.samples(baseline, round)) // run.train.batch):
            batch = next(batches)
            optimizer.zero_grad()
            TASKS[run.task].loss(model(*batch.inputs), batch.target).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), run.train.clip)
            optimizer.step()
    return travelling(model)


@pytest.mark.slow
def test_training_is_one_long_loop(make: Callable[..., Trainer], tmp_path: Path) -> None:
    """The moments go on over the rounds, and the learning rate is that of the round."""
    trainer = make("optimizer.schedule=cosine")
    baselines = baselines_of(("pooled", "local"), ROUNDS)
    done: list[tuple[int, int]] = []
    train_all(trainer, baselines, tmp_path, 2, lambda *steps: done.append(steps))
    for baseline in baselines:
        trained = weights_from_bytes(baseline.folder(tmp_path).weights.read_bytes())
        assert_close(trained, dict(plainly(trainer, baseline)), rtol=0, atol=0)
        assert not baseline.folder(tmp_path).checkpoints.exists()
    assert done[-1] == (50, 50) and done == sorted(done)


def test_what_is_averaged_in_the_federation_is_averaged_here(make: Callable[..., Trainer], tmp_path: Path) -> None:
    """strategy.average smooths the federated model; one that is compared with it is smoothed in the same way."""
    trainer = make("strategy.average=0.5")
    [baseline] = baselines_of(("local",), {1: ["site-3"], 2: ["site-3"]})
    train_all(trainer, [baseline], tmp_path, 1, lambda done, total: None)
    first = plainly(trainer, replace(baseline, rounds={1: ("site-3",)}))
    last = plainly(trainer, baseline)
    expected = {name: (0.5 * first[name] + last[name]) / 1.5 for name in last}
    trained = weights_from_bytes(baseline.folder(tmp_path).weights.read_bytes())
    assert_close(trained, expected, rtol=0, atol=1e-6)


def test_an_error_stops_the_others_and_is_raised(make: Callable[..., Trainer], tmp_path: Path) -> None:
    trainer = make()
    broken = replace(trainer, cohorts={**trainer.cohorts, "site-1": []})
    with pytest.raises(AssertionError, match="a cohort has one training patient or more"):
        train_all(broken, baselines_of(("pooled", "local"), ROUNDS), tmp_path, 2, lambda done, total: None)
    assert not BaselineFolder(tmp_path / "pooled").training.exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loop_that_ends_early_leaves_no_thread_that_draws(
    make: Callable[..., Trainer], tmp_path: Path, workers: int
) -> None:
    """Whoever still holds the error holds the loop's frames, and so its batches: they must be closed by name."""
    trainer = replace(make(), workers=workers)

    def stepped(done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    for name in ("local", "pooled"):
        [baseline, *_] = baselines_of((name,), ROUNDS)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(baseline, baseline.folder(tmp_path), stepped)
        assert not [each for each in threading.enumerate() if each.name.startswith("ahead")]


@pytest.mark.slow
def test_of_one_site_with_kept_moments_all_three_are_the_same(tmp_path: Path) -> None:
    """The federation of one site, whose optimiser goes on, is its own local training, and that on pooled data.

    But for the last bit of an update, which AdamW's first steps make much of: SGD does not.
    """
    sgd = ("optimizer=sgd", "optimizer.momentum=0.9", "train.lr=0.05", "optimizer.moments=kept")
    words = ("sites=1", "data.patients=8", "data.test=0.3", "baselines=[pooled,local]", *sgd, f"out={tmp_path / 'run'}")
    assert simulate(composed(*words)).status == "done"
    files = SimulationFolder(tmp_path / "run")
    paths = [files.model, files.baselines / "pooled", files.baselines / "local-site-1"]
    federated, pooled, local = (weights_from_bytes((path / "model.safetensors").read_bytes()) for path in paths)
    assert_close(pooled, local, rtol=0, atol=0)
    assert_close(federated, local, rtol=0, atol=1e-6)
    first = travelling(initial_model(parse_settings(composed(*words))[0]))
    assert max((local[name] - first[name]).abs().max().item() for name in local) > 1e-3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("baselines=[pooled]",), r"baselines=\[pooled\]: .* give data.test=0.2 as well"),
        (("baselines=[best]", "data.test=0.2"), "baselines.*=best: must be 'pooled' or 'local'"),
        (("baselines=pooled", "data.test=0.2"), r"baselines=pooled: must be a list, in brackets"),
    ],
)
def test_what_cannot_be_is_a_sentence(words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse_settings(composed(*words))
