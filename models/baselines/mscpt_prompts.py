"""MSCPT's texts (Han et al., 2024): low ones as they are; high ones with vectors that are learned before every layer.

A high prompt is [start] [G learned vectors] [O vectors of the class's O low texts] [description] [end]. Before the
tower's first layer all of those places hold learned vectors, without position embeddings; before layer l the first G
hold learned vectors of that layer and the others ``z + Wp z``, with z the state of a low text at its end token behind
layer l - 1, of unit length, and Wp one for all layers. In CONCH's tower the class embedding stands for the end token.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.prompts import PromptTokens
from models.vlms import TextSide
from models.vlms.prefix_tree import PrefixTree
from utils.errors import Fault, UserError

GLOBAL_VECTORS = 2


def deep_tree(tower: TextSide, token_ids: Tensor, groups: Tensor | None = None) -> PrefixTree:
    """The tower's prefix tree. Raises UserError where the states of its nodes cannot be replaced before each layer."""
    tree = tower.prefix_tree(token_ids, groups)
    if tree is None or not tower.attention_norms():
        raise UserError(
            Fault(
                "vlm.no_deep_prompts",
                "--model_type MSCPT",
                "the text tower takes no vectors between its layers",
                expected="a causal tower with a norm in front of each attention, as CLIP's and CONCH's",
                mend="name such a model with --feature_extractor and --vlm_path",
            )
        )
    return tree


@contextmanager
def before_layers(tower: TextSide, visit: Callable[[int, Tensor], Tensor | None]) -> Iterator[None]:
    """While the tower encodes, ``visit(layer, states)`` sees the states (U, W) of the prefix tree's nodes before each
    layer, and may return what the layer's attention reads in their place. The residual path keeps the old states, so
    only those of nodes that are replaced before every layer may be replaced."""

    def hook(layer: int, norm: nn.Module, inputs: tuple[Tensor]) -> Tensor | None:
        return visit(layer, inputs[0])

    handles = [
        norm.register_forward_pre_hook(partial(hook, layer)) for layer, norm in enumerate(tower.attention_norms())
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def encode_plain(tower: TextSide, token_ids: Tensor) -> tuple[Tensor, Tensor]:
    """(N, L) ids -> features (N, D) and the states at the end token behind every layer but the last,
    (layers - 1, N, W); all of unit length."""
    tree = deep_tree(tower, token_ids)
    ends = tree.nodes.gather(1, tree.last.unsqueeze(1)).squeeze(1)
    states: list[Tensor] = []

    def keep(layer: int, nodes: Tensor) -> None:
        if layer:
            states.append(F.normalize(nodes[ends], dim=1))

    with before_layers(tower, keep):
        features = tower.encode_prompts(tower.embed(token_ids), token_ids, tree)
    return F.normalize(features, dim=1), torch.stack(states)


class DeepPromptLearner(nn.Module):
    """Both kinds of texts through the frozen tower; the learned vectors and Wp alone are trained.

    low_texts: K*O, high_texts: K*M, class-major. Sizes: K classes, D features, W the tower's width, G global vectors.
    low_features: (K*O, D), and low_states: (layers - 1, K*O, W).
    """

    token_embeddings: Tensor
    token_ids: Tensor
    low_features: Tensor
    low_states: Tensor
    nodes: Tensor

    def __init__(
        self,
        tower: TextSide,
        low_texts: Sequence[str],
        high_texts: Sequence[str],
        num_classes: int,
        num_global: int = GLOBAL_VECTORS,
    ):
        super().__init__()
        self.tower = tower
        self.num_classes = num_classes
        num_learned, num_high = num_global + len(low_texts) // num_classes, len(high_texts) // num_classes
        low_tokens = PromptTokens(tower, [*low_texts], 0, "end")
        high_tokens = PromptTokens(tower, [*high_texts], num_learned, "end")
        self.num_cut, self.num_prompts = low_tokens.num_cut + high_tokens.num_cut, len(low_texts) + len(high_texts)
        device = tower.logit_scale.device
        token_ids = high_tokens.token_ids.to(device)
        # the prompts of a class begin alike, so its learned vectors have one node each
        self.tree = deep_tree(tower, token_ids, torch.arange(num_classes).repeat_interleave(num_high))
        nodes = self.tree.nodes.gather(1, high_tokens.context_positions.to(device))[::num_high]
        low_features, low_states = encode_plain(tower, low_tokens.token_ids.to(device))
        with torch.no_grad():
            embeddings = tower.embed(token_ids)
        constants = {
            "token_ids": token_ids,
            "token_embeddings": embeddings,
            "low_features": low_features,
            "low_states": low_states,
            "nodes": nodes,
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)
        self.first = nn.Parameter(torch.empty(num_learned, tower.width))
        self.deep = nn.ParameterList(
            nn.Parameter(torch.empty(num_global, tower.width)) for _ in tower.attention_norms()[1:]
        )
        for vectors in (self.first, *self.deep):
            nn.init.normal_(vectors, std=0.02)
        self.project = nn.Linear(tower.width, tower.width)
        self._kept: tuple[object, Tensor] | None = None

    def train(self, mode: bool = True) -> "DeepPromptLearner":
        """The tower stays frozen and in evaluation mode."""
        super().train(mode)
        self.tower.eval()
        return self

    def vectors(self, layer: int) -> Tensor:
        """What stands in the prompts of each class before a layer: (K, G + O, W)."""
        if layer == 0:
            return self.first.expand(self.num_classes, -1, -1)
        low = self.low_states[layer - 1].unflatten(0, (self.num_classes, -1))
        own = self.deep[layer - 1].expand(self.num_classes, -1, -1)
        return torch.cat([own, low + self.project(low)], dim=1)

    def forward(self) -> Tensor:
        """Features of the high texts, of unit length: (K*M, D). Without gradients they are computed once for each state
        of the learned vectors."""
        if torch.is_grad_enabled():
            return self._encode()
        learned = [self.first, *self.deep, *self.project.parameters()]
        state = torch.is_autocast_enabled(self.first.device.type), [(p.data_ptr(), p._version) for p in learned]
        if self._kept is None or self._kept[0] != state:
            self._kept = (state, self._encode())
        return self._kept[1]

    def _encode(self) -> Tensor:
        def put(layer: int, nodes: Tensor) -> Tensor:
            return nodes.index_copy(0, self.nodes.flatten(), self.vectors(layer).flatten(0, 1).to(nodes.dtype))

        with before_layers(self.tower, put):
            return F.normalize(self.tower.encode_prompts(self.token_embeddings, self.token_ids, self.tree), dim=1)
