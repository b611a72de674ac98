"""Seeds, devices, versions."""

import importlib.metadata
import platform
import random

import numpy as np
import pytest
import torch

from tests.support.faults import expect_faults
from utils.reproducibility import choose_device, seed_everything, versions


def draws(seed: int, epoch: int = 0) -> tuple[float, ...]:
    """One number of each generator."""
    seed_everything(seed, epoch)
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_a_seed_and_epoch_repeat_themselves_in_every_generator() -> None:
    first = draws(3, 7)
    draws(4)
    assert draws(3, 7) == first
    assert all(a != b for a, b in zip(first, draws(4, 7), strict=True))
    assert all(a != b for a, b in zip(first, draws(3, 8), strict=True))


def test_no_two_epochs_of_neighbouring_seeds_are_alike() -> None:
    """Adding up seed and epoch would make epoch 1 of seed 2 repeat epoch 2 of seed 1."""
    drawn = [draws(seed, epoch) for seed in range(5) for epoch in range(5)]
    assert len(set(drawn)) == 25


@pytest.mark.parametrize("seed", [0, -1, 2**31, 2**40])
def test_any_integer_is_a_seed(seed: int) -> None:
    assert draws(seed) == draws(seed)


def test_default_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(None) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device(None) == torch.device("cuda")
    assert choose_device("cpu") == torch.device("cpu")


def test_named_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with expect_faults("device.missing") as faults:
        choose_device("cuda:2")
    assert str(faults[0]) == "--device cuda:2: found 2 CUDA devices; expected cpu, or another n"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with expect_faults("device.missing"):
        choose_device("cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "meta", "mps", ""])
def test_unknown_device(name: str) -> None:
    with expect_faults("device.unknown") as faults:
        choose_device(name)
    assert (faults[0].where, faults[0].expected) == (f"--device {name}", "cpu, cuda or cuda:<n>")


def test_versions() -> None:
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["torch"] == importlib.metadata.version("torch") == torch.__version__
    assert {"numpy", "transformers", "scikit-learn", "pandas"} <= found.keys()
