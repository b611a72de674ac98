"""CONCH's text tower (Lu et al., Nature Medicine 2024), built from open_clip's TextTransformer.

The published way, as CONCH itself encodes texts: causal attention over the tokens, a learned class embedding behind
them (position 127), whose query does not see padding; its output, normalised and projected, is the text's feature.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conch.tokenizer import ConchTokenizer
from conch.transformer import Block, PrefixTree, last_states

CLASS_TOKEN = -1  # stands for the class embedding among the token ids

PUBLISHED_CONFIG: dict[str, Any] = {
    "embed_dim": 512,
    "text_cfg": {
        "context_length": 127,
        "vocab_size": 32007,
        "width": 768,
        "heads": 12,
        "layers": 12,
        "embed_cls": True,
        "pad_id": 0,
    },
}


class ConchTextTower(nn.Module):
    """Frozen weights, token by token.

    Sizes: W the tower's width (768), L at most ``context_length`` (127), D ``output_dim`` (512).
    """

    logit_scale: Tensor

    def __init__(self, transformer: Any, logit_scale: Tensor, tokenizer: ConchTokenizer):
        super().__init__()
        self.transformer: Any = transformer
        self.tokenizer = tokenizer
        self.register_buffer("logit_scale", logit_scale.detach().clone().float())
        self.context_length: int = transformer.context_length
        self.width: int = transformer.width
        self.output_dim: int = transformer.text_projection.shape[1]

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without start, end and padding."""
        return self.tokenizer.encode(texts)

    @property
    def special_tokens(self) -> tuple[int, int, int]:
        """The ids of start, end and padding."""
        return self.tokenizer.bos_id, self.tokenizer.eos_id, self.tokenizer.pad_id

    def embed(self, token_ids: Tensor) -> Tensor:
        """Token embeddings without positions: (N, L) -> (N, L, W)."""
        return self.transformer.token_embedding(token_ids)

    def prefix_tree(self, token_ids: Tensor, groups: Tensor | None = None) -> PrefixTree:
        """The distinct prefixes of (N, L) ids. Each sequence is its tokens, the first padding token (CONCH's class mask
        is shifted by one, so it takes part) and the class embedding."""
        visible = self._num_visible(token_ids)
        ids = F.pad(token_ids, (0, 1)).scatter(1, visible.unsqueeze(1), CLASS_TOKEN)
        return PrefixTree(ids[:, : int(visible.max()) + 1], visible + 1, groups)

    def encode(self, token_embeddings: Tensor, token_ids: Tensor, tree: PrefixTree | None = None) -> Tensor:
        """Text features, projected and not normalised: (N, L, W) embeddings of (N, L) ids -> (N, D).

        tree: what ``prefix_tree`` gives, where it is at hand.
        """
        tower = self.transformer
        tree = tree or self.prefix_tree(token_ids)
        length = tree.nodes.shape[1] - 1
        x = F.pad(token_embeddings[:, :length] + tower.positional_embedding[:length], (0, 0, 0, 1))
        is_class = torch.arange(length + 1, device=x.device) == tree.last.unsqueeze(1)
        x = torch.where(is_class.unsqueeze(-1), tower.cls_emb + tower.positional_embedding[-1], x)
        # the class embedding sees itself only where no padding token stands before it
        has_padding = (token_ids == tower.pad_id).any(1)
        blind = torch.diag_embed(is_class & has_padding.unsqueeze(1))
        mask = torch.ones(length + 1, length + 1, dtype=torch.bool, device=x.device).tril() & ~blind
        x = last_states(
            [_block(block) for block in tower.transformer.resblocks], x, tree, tower.heads, mask.unsqueeze(1)
        )
        return tower.ln_final(x) @ tower.text_projection

    def _num_visible(self, token_ids: Tensor) -> Tensor:
        """How many tokens the class embedding sees: (N, L) -> (N,)."""
        num_tokens = (token_ids != self.transformer.pad_id).sum(1)
        return (num_tokens + 1).clamp(max=token_ids.shape[1])


def _block(block: Any) -> Block:
    def attend(x: Tensor) -> Sequence[Tensor]:
        return F.linear(x, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)

    return Block(block.ln_1, attend, block.attn.out_proj, block.ln_2, block.mlp)


def _read_config(weights: Path) -> dict[str, Any]:
    """The sizes beside the weights (``open_clip_config.json``), else CONCH's published ones."""
    config_file = weights.with_name("open_clip_config.json")
    if not config_file.exists():
        return PUBLISHED_CONFIG
    return json.loads(config_file.read_text())["model_cfg"]


def load_text_tower(weights: Path, tokenizer_file: Path) -> ConchTextTower:
    """Build the tower from CONCH's ``pytorch_model.bin`` (its image tower may be missing).

    Raises RuntimeError when keys or shapes of ``text.*`` do not fit, KeyError without ``logit_scale``.
    """
    from open_clip.transformer import TextTransformer

    config = _read_config(weights)
    state = torch.load(weights, map_location="cpu", weights_only=True)
    transformer = TextTransformer(
        **config["text_cfg"], output_dim=config["embed_dim"], output_tokens=True, correct_cls_mask=False
    )
    text_state = {name.removeprefix("text."): value for name, value in state.items() if name.startswith("text.")}
    transformer.load_state_dict(text_state, strict=True)
    return ConchTextTower(transformer, state["logit_scale"], ConchTokenizer(tokenizer_file))
