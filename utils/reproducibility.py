"""Seeds, devices, versions, and sums in one order."""

import importlib.metadata
import os
import platform
import random

import numpy as np
import torch

from utils.errors import Fault, UserError

PACKAGES = ("torch", "transformers", "open_clip_torch", "numpy", "pandas", "scikit-learn", "h5py")
DEVICES = "cpu, cuda or cuda:<n>"


def make_deterministic() -> None:
    """Let PyTorch add up in one order on CPU and CUDA, so that the same seed on as many threads gives the same bytes.

    For the whole process, and before CUDA starts: cuBLAS reads the size of its workspace once. An operation that has no
    deterministic form raises RuntimeError from here on. Fresh memory stays unfilled, as it is by default.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms sets this, and imports the compiler
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def seed_everything(seed: int, epoch: int = 0) -> None:
    """Seed every generator from the run's seed and an epoch, so that an epoch can be repeated by itself."""
    mixed = int(np.random.SeedSequence([seed % 2**32, epoch]).generate_state(1)[0])
    random.seed(mixed)
    np.random.seed(mixed)
    torch.manual_seed(mixed)


def choose_device(name: str | None) -> torch.device:
    """The device asked for; CUDA where there is one by default. Raises UserError where it is not there."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    option = f"--device {name}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(Fault("device.unknown", option, "no such device", expected=DEVICES)) from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(Fault("device.unknown", option, f"a device of type {device.type}", expected=DEVICES))
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = f"found {torch.cuda.device_count()} CUDA devices"
        raise UserError(Fault("device.missing", option, found, expected="cpu, or another n"))
    return device


def versions() -> dict[str, str]:
    """What computed a result: Python and the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        found[package] = importlib.metadata.version(package)
    return found
