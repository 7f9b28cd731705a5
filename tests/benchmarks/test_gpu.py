"""The benchmark of a GPU without one: that it ends in time, keeps what it has, and says what it lacks."""

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.benchmarks import __main__, gpu
from tests.benchmarks.gpu import SECTIONS, Outcome, Section, page_text, run
from tests.benchmarks.gpu_steps import TINY, Cells, Scale, peak_of

CPU = torch.device("cpu")
BEGIN, END = "<!-- made by make bench: gpu -->", "<!-- end of gpu -->"


def endless(scale: Scale, device: torch.device) -> Iterator[Cells]:
    yield ("one",)
    while True:
        time.sleep(0.01)


def broken(scale: Scale, device: torch.device) -> Iterator[Cells]:
    yield ("one",)
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def quick(scale: Scale, device: torch.device) -> Iterator[Cells]:
    yield ("one",)
    yield ("two",)


def test_a_section_that_does_not_end_or_fails_costs_no_other(capfd: pytest.CaptureFixture[str]) -> None:
    """Time on a GPU is dear: what was measured counts, and what was not is named."""
    sections = {name: Section(name, ("a",), make, 0.2) for name, make in (("e", endless), ("b", broken), ("q", quick))}
    outcome = run(sections, TINY, CPU, 60)
    assert outcome.rows == {"e": [("one",)], "b": [("one",)], "q": [("one",), ("two",)]}
    assert outcome.left_out == ["e after 1 rows"]
    assert outcome.failed == ["b after 1 rows (RuntimeError)"]
    assert run({"e": sections["e"]}, TINY, CPU, 0.0).left_out  # the time of all is over


@pytest.mark.parametrize(
    ("outcome", "right"),
    [
        (Outcome(rows={"correctness": [("unet", "yes"), ("lstm_unet", "yes")]}), True),
        (Outcome(rows={"correctness": [("unet", "yes"), ("lstm_unet", "**no**")]}), False),
        (Outcome(rows={"correctness": [("unet", "yes")]}, left_out=["correctness after 1 rows"]), False),
        (Outcome(rows={"correctness": [("unet", "yes")]}, failed=["correctness after 1 rows (ValueError)"]), False),
        (Outcome(rows={"steps": [("unet", "1")]}), False),
    ],
)
def test_nothing_passes_that_was_not_compared(outcome: Outcome, right: bool) -> None:
    assert outcome.right is right


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2, wrong use, before anything is measured."""
    monkeypatch.setattr(sys, "argv", ["bench", "gpu", "--device", "cpu"])
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_a_peak_is_of_the_device_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The more exact name comes first; a device that nobody wrote down has none."""
    cuda = torch.device("cuda")
    for name, peak in (("NVIDIA H100 PCIe", 756), ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA T4", None)):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert peak_of(cuda, "bf16") == peak
    assert peak_of(CPU, "bf16") is None


def test_the_page_has_the_place_for_the_tables() -> None:
    page = gpu.PAGE.read_text()
    assert page.count(BEGIN) == page.count(END) == 1


def test_tables_are_whole() -> None:
    """With the machine, the date, and what is missing."""
    outcome = Outcome(
        rows={"round": [("unet", "base", "32", "done", "4.2")], "steps": []}, left_out=["steps after 0 rows"]
    )
    text = page_text(outcome, "A machine")
    assert text.startswith("A machine, 2") and "Left out, since time was over: steps after 0 rows." in text
    assert "| model | preset | steps | status | s |\n| --- | --- | --- | --- | --- |\n| unet | base |" in text


@pytest.mark.slow
def test_all_of_it_runs_on_a_cpu_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nothing but the GPU is new where there is one: eight minutes on it are few."""
    page = tmp_path / "page.md"
    shutil.copy(gpu.PAGE, page)
    monkeypatch.setattr(sys, "argv", ["bench", "gpu", "--tiny", "--device", "cpu", "--page", str(page)])
    monkeypatch.setattr(gpu, "BUDGET", 3600.0)  # a busy machine takes longer, and nothing here is about time
    monkeypatch.setattr(
        gpu, "SECTIONS", {name: Section(s.title, s.head, s.measure, 3600.0) for name, s in SECTIONS.items()}
    )
    __main__.main()
    text = page.read_text().split(BEGIN)[1].split(END)[0]
    for section in SECTIONS.values():
        table = text.split(f"{section.title}:\n\n")[1].split("\n\n")[0].splitlines()
        assert len(table) > 2, section.title
        assert {line.count("|") for line in table} == {len(section.head) + 1}, section.title
    assert "Left out" not in text and "Failed" not in text and "**no**" not in text
