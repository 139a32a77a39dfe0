"""What a stretch of work took of the machine: seconds, memory, and of a GPU memory and utilisation."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SAMPLE_S = 0.2
MIB = 1 << 20


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """Measure the block; the dict is filled when it ends.

    Yields:
        seconds; peak_mib, this process's greatest resident memory, pages shared with others included
        (Linux); where the block used a CUDA device: gpu_mib, the most that torch held there, and
        gpu_utilisation, mean share of the time that it was busy, where NVIDIA's library tells.
    """
    import torch

    found: dict[str, float] = {}
    gpu = torch.cuda.is_available()
    shares: list[float] = []
    done = threading.Event()
    sampler = threading.Thread(target=_sample, args=(shares, done), daemon=True)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    if gpu:
        torch.cuda.reset_peak_memory_stats()
        sampler.start()
    begun = time.perf_counter()
    try:
        yield found
    finally:
        found["seconds"] = time.perf_counter() - begun
        with suppress(OSError):
            found["peak_mib"] = _resident_peak() / MIB
        if gpu:
            done.set()
            sampler.join()
            if held := torch.cuda.max_memory_allocated():
                found["gpu_mib"] = held / MIB
                if shares:
                    found["gpu_utilisation"] = sum(shares) / len(shares)


def _resident_peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


def _sample(shares: list[float], done: threading.Event) -> None:
    import torch

    while not done.wait(SAMPLE_S):
        try:
            shares.append(torch.cuda.utilization() / 100)
        except (ImportError, RuntimeError):
            return
