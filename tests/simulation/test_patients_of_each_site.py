"""data.patients as a list: each site its own number, of data that the others' numbers do not touch."""

import hashlib
from pathlib import Path

import pytest
from small_run import SMALL_GRADING_DATA, as_given, composed

from gliofed.shared.parse import ConfigError
from gliofed.simulation.settings import parse_settings
from gliofed.simulation.simulate import agreed_patients
from gliofed.simulation.sites import make_sites, patients_written


def written(root: Path, *words: str) -> dict[str, dict[str, str]]:
    """The SHA-256 of each file, by site."""
    values = as_given("model=cnn_lstm", *SMALL_GRADING_DATA, *words, f"data.root={root}")
    run, settings = parse_settings(values)
    steps: list[tuple[int, int]] = []
    made = make_sites(values["data"], run, settings, root / "run", lambda *each: steps.append(each))
    assert steps[-1] == (sum(patients_written(values["data"], len(made))),) * 2
    assert agreed_patients(made, patients_written(values["data"], len(made)), run) == {
        site.name: number for site, number in zip(made, patients_written(values["data"], len(made)), strict=True)
    }
    return {
        site.name: {
            str(path.relative_to(site.root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in Path(site.root).rglob("*.gz")
        }
        for site in made
    }


@pytest.mark.slow
def test_each_site_has_its_number_whatever_the_others_have(tmp_path: Path) -> None:
    """site-1 has the same two patients, and site-2 the same first one."""
    uneven = written(tmp_path / "uneven", "data.patients=[2,1,3]")
    even = written(tmp_path / "even", "data.patients=2", "sites=3")
    assert {site: len(files) / 5 for site, files in uneven.items()} == {"site-1": 2, "site-2": 1, "site-3": 3}
    assert uneven["site-1"] == even["site-1"]
    assert uneven["site-2"].items() <= even["site-2"].items() and even["site-3"].items() <= uneven["site-3"].items()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("data.patients=[2,3]", "sites=3"),
            r"data\.patients=\[2, 3\]: numbers of 2 sites, and sites=3; give sites=null",
        ),
        (("data.patients=[]",), "names no site"),
    ],
)
def test_numbers_must_be_of_the_sites(words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse_settings(composed(*words))


@pytest.mark.parametrize(
    ("number", "sentence"),
    [("0", "must be greater than 0"), ("many", "data.patients=many"), ("true", "data.patients=True")],
)
def test_each_number_is_checked(number: str, sentence: str, tmp_path: Path) -> None:
    values = composed(f"data.patients=[2,{number}]", f"data.root={tmp_path / 'data'}")
    run, settings = parse_settings(values)
    with pytest.raises(ConfigError, match=sentence):
        make_sites(values["data"], run, settings, tmp_path, lambda done, total: None)
    assert not (tmp_path / "data").exists()
