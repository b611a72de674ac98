"""What all models over a bag of patches have in common."""

import torch
from torch import Tensor

from tests.support.baseline_case import bag_of
from utils.interface import Bag, SlideModel


def gradient_norms(model: SlideModel, bag: Bag) -> dict[str, float]:
    """The norms of all parameters' gradients in training: each must be there and be finite."""
    model.train().zero_grad()
    model(bag).loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients.values())
    return {name: float(gradient.norm()) for name, gradient in gradients.items()}


def check_any_order(model: SlideModel, patches: Tensor, order: Tensor, label: int = 1) -> None:
    """The same logits and loss in another order of the patches, and the same attention of each."""
    expected, found = model(bag_of(patches, label)), model(bag_of(patches[order], label))
    torch.testing.assert_close(found.logits, expected.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.loss, expected.loss, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.details["attention"], expected.details["attention"][:, order])
