"""The pretended device refuses what CUDA refuses, allows what it allows, and counts; so a test on it can fail."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.pretend_device import pretend_device

Mixture = Callable[[Tensor, Tensor], object]


@pytest.mark.parametrize(
    "mixture",
    [
        lambda ours, cpu: ours + cpu,
        lambda ours, cpu: ours @ cpu,
        lambda ours, cpu: ours[0, 0] * cpu,  # a number of the device is no exception
        lambda ours, cpu: torch.cat([ours, cpu]),
        lambda ours, cpu: torch.stack([ours[0, 0], cpu[0, 0]]),
        lambda ours, cpu: torch.where(cpu > 0, ours, ours),
        lambda ours, cpu: ours.index_select(0, torch.tensor([0])),
        lambda ours, cpu: cpu[torch.tensor([0], device=ours.device)],
        lambda ours, cpu: ours.index_put((torch.tensor([0], device=ours.device),), cpu[0]),
        lambda ours, cpu: ours.add_(cpu),
        lambda ours, cpu: cpu.add_(ours),
        lambda ours, cpu: nn.functional.linear(ours, cpu),
        lambda ours, cpu: nn.functional.cross_entropy(ours, torch.tensor([0, 1, 2])),
    ],
)
def test_tensors_of_both_kinds_are_refused(mixture: Mixture) -> None:
    cpu = torch.randn(3, 3)
    with pretend_device() as (device, _), pytest.raises(RuntimeError, match=r"same device|the CPU"):
        mixture(torch.randn(3, 3).to(device), cpu)


@pytest.mark.parametrize(
    "mixture",
    [
        lambda ours, cpu: ours * cpu[0, 0],  # a number of the CPU
        lambda ours, cpu: ours.masked_fill(ours > 0, cpu[0, 0]),
        lambda ours, cpu: ours[torch.tensor([0, 2])],
        lambda ours, cpu: ours.copy_(cpu),
        lambda ours, cpu: ours.clone().t().squeeze_().unsqueeze_(0) + ours.t(),
        lambda ours, cpu: ours + torch.arange(3, device=ours.device) + torch.tensor(1.0, device=ours.device),
    ],
)
def test_what_cuda_allows_is_allowed(mixture: Mixture) -> None:
    values, cpu = torch.randn(3, 3), torch.randn(3, 3)
    expected = mixture(values.clone(), cpu)
    with pretend_device() as (device, _):
        found = mixture(values.to(device), cpu)
        assert isinstance(found, Tensor) and found.device == device
        torch.testing.assert_close(found.cpu(), expected)


def test_a_fault_in_the_backward_pass_is_refused() -> None:
    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, values: Tensor) -> Tensor:
            return 2 * values

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return gradient * torch.tensor([2.0, 2.0])

    with pretend_device() as (device, _):
        values = torch.randn(2).to(device).requires_grad_()
        loss = Doubled.apply(values).sum()
        with pytest.raises(RuntimeError, match="same device"):
            loss.backward()


def test_numpy_is_refused() -> None:
    with pretend_device() as (device, _):
        values = torch.randn(2, device=device)
        for convert in (lambda: values.numpy(), lambda: np.asarray(values)):
            with pytest.raises(TypeError, match=r"use Tensor\.cpu"):
                convert()
        assert values.cpu().numpy().shape == (2,)


def test_what_a_gpu_pays_for_is_counted() -> None:
    mask, values = torch.tensor([True, False, True]), torch.randn(3)
    with pretend_device() as (device, counts):
        ours, our_mask = values.to(device), mask.to(device)
        assert (counts.calls, counts.copies) == (2, 2)
        counts.reset()
        total = (2 * ours).view(3, 1).sum()
        assert (counts.calls, counts.views, counts.synchronisations) == (3, 1, 0)
        for count, wait in enumerate(
            (lambda: float(total), lambda: ours[our_mask], lambda: our_mask.nonzero(), ours.cpu, ours.tolist), start=1
        ):
            wait()
            assert counts.synchronisations == count
        assert counts.copies == 0
        ours[torch.tensor([0, 1])]
        assert (counts.copies, counts.synchronisations) == (1, 5)
        values + 1
        assert counts.calls == 3 + 5 + 1


def test_modules_move_and_files_are_read_on_the_cpu() -> None:
    layer = nn.Linear(3, 2)
    expected = layer.weight.detach().clone()
    with pretend_device() as (device, _):
        assert layer.to(device).weight.device == device
        file = io.BytesIO()
        torch.save(layer.state_dict(), file)
        file.seek(0)
        saved = torch.load(file, weights_only=True)
    assert saved["weight"].device == torch.device("cpu")
    torch.testing.assert_close(saved["weight"], expected)
