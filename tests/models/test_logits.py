"""Logits and text loss of the paper variant against their brute-force twins."""

import pytest
import torch

from models import htcl
from models.logits import scale_logits
from tests.support import twins
from tests.support.random_slide import random_texts


@pytest.mark.parametrize("num_images", [0, 1, 3, 40])
@pytest.mark.parametrize("top_k", [1, 2, 100])
def test_logits(num_images: int, top_k: int) -> None:
    generator = torch.Generator().manual_seed(num_images)
    images = torch.nn.functional.normalize(torch.randn(num_images, 8, generator=generator, dtype=torch.float64), dim=1)
    texts = torch.nn.functional.normalize(torch.randn(12, 8, generator=generator, dtype=torch.float64), dim=1)
    ours = scale_logits(texts @ images.t(), 3, top_k, torch.tensor(4.5871, dtype=torch.float64))
    torch.testing.assert_close(ours, twins.top_k_logits(images, texts, 3, top_k, 4.5871))


@pytest.mark.parametrize("variant", ["class_wise", "instance_wise", "share_parent"])
@pytest.mark.parametrize("num_classes, num_low, num_subtexts", [(2, 4, 3), (3, 2, 1), (2, 1, 2)])
def test_text_loss(variant: str, num_classes: int, num_low: int, num_subtexts: int) -> None:
    low, high = random_texts(5, num_classes, num_low, num_subtexts)
    loss = htcl.HTCL[variant]
    assert loss is not None
    torch.testing.assert_close(loss(low, high, num_classes), twins.htcl(low, high, num_classes, variant))
    low, high = low.requires_grad_(), high.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b, num_classes), (low, high))
