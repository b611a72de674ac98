"""CONCH's text tower (Lu et al., Nature Medicine 2024), built from open_clip's TextTransformer.

The published way, as CONCH itself encodes texts: causal attention over the tokens, a learned class embedding behind
them (position 127), whose query does not see padding; its output, normalised and projected, is the text's feature.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from conch.tokenizer import ConchTokenizer

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

    def encode(self, token_embeddings: Tensor, token_ids: Tensor) -> Tensor:
        """Text features, projected and not normalised: (N, L, W) embeddings of (N, L) ids -> (N, D).

        The first padding token takes part (CONCH's class mask is shifted by one), those behind it cannot matter:
        they are cut off, the class embedding keeps its position.
        """
        tower = self.transformer
        is_token = token_ids != tower.pad_id
        length = min(int(is_token.sum(1).max()) + 1, token_ids.shape[1])
        visible_to_class = torch.ones(len(token_ids), length + 1, dtype=torch.bool, device=token_ids.device)
        visible_to_class[:, 1:] = is_token[:, :length]
        class_embedding = tower.cls_emb.expand(len(token_ids), 1, -1)
        positions = torch.cat([tower.positional_embedding[:length], tower.positional_embedding[-1:]])
        x = torch.cat([token_embeddings[:, :length], class_embedding], dim=1) + positions
        mask = torch.ones(length + 1, length + 1, dtype=torch.bool, device=x.device).tril().repeat(len(x), 1, 1)
        mask[:, -1] = visible_to_class
        additive = torch.zeros(mask.shape, dtype=x.dtype, device=x.device).masked_fill_(~mask, float("-inf"))
        x = tower.transformer(x, attn_mask=additive.repeat_interleave(tower.heads, 0))
        return tower.ln_final(x[:, -1]) @ tower.text_projection


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
