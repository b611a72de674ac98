"""Time, memory and tables of the benchmarks."""

import argparse
import ctypes
import gc
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from utils.reproducibility import versions


class Spent(NamedTuple):
    """Seconds of one call by the clock on the wall, and of the processor over all threads, which other programs disturb
    less. On CUDA both are the device's."""

    wall: float
    cpu: float

    @property
    def seconds(self) -> float:
        """Of the processor where it is one thread of a CPU, else by the clock on the wall."""
        return self.cpu if torch.get_num_threads() == 1 else self.wall


def timed(call: Callable[[], Any], device: torch.device) -> Spent:
    gc.collect()
    if device.type != "cuda":
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        return Spent(time.perf_counter() - wall, time.process_time() - cpu)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    call()
    last.record()
    torch.cuda.synchronize()
    return Spent(*2 * [first.elapsed_time(last) / 1000])


def medians(candidates: dict[str, Callable[[], Any]], device: torch.device, rounds: int) -> dict[str, Spent]:
    """By name. Before each timed call comes another of the same, so that it finds caches and free memory as
    one slide after another does, not as the other candidates left them."""
    spent: dict[str, list[Spent]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            call()
            spent[name].append(timed(call, device))
    return {name: Spent(*map(statistics.median, zip(*values, strict=True))) for name, values in spent.items()}


def evaluation_or_step(model: nn.Module, loss: Callable[[], Tensor | None], task: str) -> Callable[[], None]:
    """What is measured of a model: "evaluation", its forward pass, or "training", a step's forward and backward pass.
    loss: runs the model on a slide."""

    def evaluate() -> None:
        with torch.no_grad():
            loss()

    def train() -> None:
        model.zero_grad()
        computed = loss()
        assert computed is not None
        computed.backward()

    return evaluate if task == "evaluation" else train


def peak_of(call: Callable[[], Any], device: torch.device) -> float:
    """GB that a call takes above what is taken before it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - allocated) / 1e9
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free goes back, so that all that is used counts
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is resident now
    before = _resident("VmRSS")
    call()
    return (_resident("VmHWM") - before) / 1e9


def _resident(field: str) -> int:
    """Bytes, from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def peak_elsewhere(options: argparse.Namespace, *figure: str, module: str = "benchmarks.model") -> float:
    """The module's ``peak_memory`` in a fresh process; NaN where it fails there, out of memory say."""
    command = [sys.executable, "-m", module, "--device", options.device, "--threads", str(options.threads)]
    done = subprocess.run([*command, "--figure", *figure], capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else float("nan")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def header(device: torch.device, threads: int) -> str:
    """Date, machine and versions."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{_processor()}, {threads} threads"
    return f"{time.strftime('%Y-%m-%d')}, {name}; {', '.join(f'{key} {value}' for key, value in versions().items())}"


def table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    print(f"\n### {title}\n\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for row in rows:
        cells = [
            f"{cell:.3g}" if isinstance(cell, float) else f"{cell:,}" if isinstance(cell, int) else cell for cell in row
        ]
        print(f"| {' | '.join(cells)} |")
    sys.stdout.flush()
