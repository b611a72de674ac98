"""How the released code reads prompts; it differs from how CLIP and CONCH read texts (``--variant released``)."""

import torch
from torch import Tensor

from conch.text_tower import ConchTextTower
from models.text_towers import ClipTextTower, TextTower, first_position


def released_encoding(tower: TextTower, embeddings: Tensor, token_ids: Tensor, num_classes: int) -> Tensor:
    """(N, L, W) prompt embeddings of (N, L) ids -> (N, D) features; prompts stand class by class."""
    if isinstance(tower, ConchTextTower):
        return _released_conch(tower, embeddings, token_ids)
    assert isinstance(tower, ClipTextTower)
    return _released_clip(tower, embeddings, token_ids, num_classes)


def _released_clip(tower: ClipTextTower, embeddings: Tensor, token_ids: Tensor, num_classes: int) -> Tensor:
    """Every token position attends, without a mask, across the prompts of its class at the same position; the end
    token's row is multiplied by the projection's weight untransposed."""
    num_prompts, length, width = embeddings.shape
    x = embeddings + tower.text_model.embeddings.position_embedding.weight[:length]
    x = x.view(num_classes, -1, length, width).transpose(1, 2)
    x = tower.text_model.encoder(inputs_embeds=x.flatten(0, 1), is_causal=False).last_hidden_state
    x = x.view(num_classes, length, -1, width).transpose(1, 2).flatten(0, 1)
    end = first_position(token_ids, tower.tokenizer.eos_id)
    pooled = x[torch.arange(num_prompts, device=x.device), end]
    return tower.text_model.final_layer_norm(pooled) @ tower.text_projection.weight


def _released_conch(tower: ConchTextTower, embeddings: Tensor, token_ids: Tensor) -> Tensor:
    """A padding token in place of the class embedding, no mask at all, pooled at the largest token id."""
    conch = tower.transformer
    padding = conch.token_embedding.weight[conch.pad_id].expand(len(embeddings), 1, -1)
    x = torch.cat([embeddings, padding], dim=1) + conch.positional_embedding
    x = conch.ln_final(conch.transformer(x, attn_mask=None))
    return x[torch.arange(len(x), device=x.device), token_ids.argmax(dim=1)] @ conch.text_projection
