"""Time and memory of training steps that take turns, so that a machine that slows down does so for all of them."""

import ctypes
import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass
class Figures:
    """What one training step took, each time it was its turn."""

    seconds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    """Peak above what the process held before the step: activations, gradients, what convolutions need to work."""
    failed: str | None = None

    @property
    def time(self) -> float | None:
        """Seconds: the least, for other processes only ever add."""
        return min(self.seconds) if self.seconds and not self.failed else None

    @property
    def memory(self) -> float | None:
        """MB; None where it cannot be read, as on macOS."""
        return median(self.megabytes) if self.megabytes and not self.failed else None


def take_turns(steps: Mapping[str, Callable[[], None]], repeats: int, device: torch.device) -> dict[str, Figures]:
    """Run every step once to warm up, then all in turn, `repeats` times; one that runs out of memory stays out."""
    figures = {name: Figures() for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            if figures[name].failed:
                continue
            try:
                seconds, megabytes = measure_once(step, device)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not ran_out(error):
                    raise
                figures[name].failed = "out of memory"
                continue
            if turn > 0:
                figures[name].seconds.append(seconds)
                figures[name].megabytes += [] if megabytes is None else [megabytes]
    return figures


def ran_out(error: Exception) -> bool:
    """Whether `error` is about memory: on a CPU PyTorch says so in the text alone."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def measure_once(step: Callable[[], None], device: torch.device) -> tuple[float, float | None]:
    """Seconds, and MB if they can be known."""
    gc.collect()
    return _on_gpu(step) if device.type == "cuda" else _on_cpu(step)


def _on_gpu(step: Callable[[], None]) -> tuple[float, float]:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    step()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3, (torch.cuda.max_memory_allocated() - before) / 2**20


def _on_cpu(step: Callable[[], None]) -> tuple[float, float | None]:
    give_back_freed_memory()
    known = CLEAR.exists()
    if known:
        CLEAR.write_text("5")  # the peak starts again from what is held now
        before = resident("VmRSS")
    start = time.perf_counter()
    step()
    seconds = time.perf_counter() - start
    return seconds, resident("VmHWM") - before if known else None


def resident(name: str) -> float:
    """MB of this process: VmRSS is held now, VmHWM the peak."""
    [line] = [line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) / 1024


def give_back_freed_memory() -> None:
    """What glibc keeps of freed memory would hide a step's need; other C libraries have no such call."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        pass
