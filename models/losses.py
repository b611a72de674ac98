"""Losses on a slide's class logits (``--bag_loss``)."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from utils.interface import ModelOutput

BagLoss = Callable[[Tensor, Tensor], Tensor]

FOCAL_GAMMA = 2.0
SVM_TAU = 1.0
SVM_MARGIN = 1.0
# where the best score leads by more than this times tau, the smooth SVM equals its hard form in single precision
SVM_HARD_LEAD = 1000.0


def focal_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Focal loss (Lin et al., 2017), mean of -(1 - p_label)^gamma log p_label with gamma 2.

    logits (N, K), labels (N,) int64 -> scalar.
    """
    log_probability = F.log_softmax(logits, dim=-1).gather(1, labels.unsqueeze(1)).squeeze(1)
    return -((1 - log_probability.exp()) ** FOCAL_GAMMA * log_probability).mean()


def smooth_top1_svm(logits: Tensor, labels: Tensor) -> Tensor:
    """Smooth top-1 SVM (Berrada et al., 2018), tau 1, margin 1: log sum_j exp(s_j + [j != t]) - s_t, mean over rows;
    the hard form max_j(s_j + [j != t]) - s_t where the best score leads the second by log(1000) or more.

    logits (N, K), labels (N,) int64 -> scalar.
    """
    is_label = F.one_hot(labels, logits.shape[1]).bool()
    target = logits.masked_select(is_label)
    with_margin = logits + SVM_MARGIN * ~is_label
    smooth = SVM_TAU * (with_margin / SVM_TAU).logsumexp(1) - target
    hard = with_margin.amax(1) - target
    best_two = logits.topk(2, dim=1).values
    is_hard = best_two[:, 0] - best_two[:, 1] >= SVM_TAU * torch.tensor(SVM_HARD_LEAD).log().item()
    return torch.where(is_hard, hard, smooth).mean()


def _build_svm(num_classes: int) -> BagLoss:
    """The smooth-topk package where it is installed, the top-1 loss above otherwise."""
    try:
        from topk.svm import SmoothTop1SVM
    except ImportError:
        return smooth_top1_svm
    svm = SmoothTop1SVM(n_classes=num_classes, alpha=SVM_MARGIN, tau=SVM_TAU)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        if hasattr(svm, "get_losses"):
            svm.to(logits.device)
            svm.get_losses()  # the package binds its losses to the device it was on
        loss: Tensor = svm(logits, labels)
        return loss

    return loss


def build_bag_loss(name: str, num_classes: int) -> BagLoss:
    """The loss named "ce", "focal" or "svm": (N, K) logits and (N,) labels -> scalar."""
    if name == "svm":
        return _build_svm(num_classes)
    losses: dict[str, BagLoss] = {"ce": F.cross_entropy, "focal": focal_loss}
    return losses[name]


def slide_loss(bag_loss: BagLoss, logits: Tensor, label: int) -> Tensor | None:
    """The loss of one slide's logits (K,); None where it has no label (-1)."""
    if label < 0:
        return None
    return bag_loss(logits.unsqueeze(0), torch.tensor([label], device=logits.device))


def bag_output(bag_loss: BagLoss, logits: Tensor, label: int, details: Mapping[str, Tensor]) -> ModelOutput:
    """What a model returns whose loss is that of its logits (K,) alone; the details are detached."""
    loss = slide_loss(bag_loss, logits, label)
    detached = {name: value.detach() for name, value in details.items()}
    return ModelOutput(logits, loss, {} if loss is None else {"bag": loss}, details=detached)
