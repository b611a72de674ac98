"""How the released code reads prompts; it differs from how CLIP and CONCH read texts (``--variant released``)."""

import torch
from torch import Tensor, nn

from conch.text_tower import ConchTextTower
from models.prompts import PromptTokens
from models.text_towers import ClipTextTower, TextTower, first_position


class ReleasedEncoding(nn.Module):
    """Prompts stand class by class.

    is_constant: whether no context token can reach a feature. So it is with a CLIP tower and the context in front.
    """

    def __init__(self, tower: TextTower, tokens: PromptTokens, num_classes: int, class_specific: bool):
        super().__init__()
        self.num_classes = num_classes
        self.is_constant = False
        if isinstance(tower, ClipTextTower):
            ends = first_position(tokens.token_ids, tower.tokenizer.eos_id)
            self.is_constant = not torch.isin(tokens.context_positions, ends).any()

    def forward(self, tower: TextTower, embeddings: Tensor, token_ids: Tensor) -> Tensor:
        """(N, L, W) prompt embeddings of (N, L) ids -> (N, D) features."""
        if isinstance(tower, ConchTextTower):
            return _released_conch(tower, embeddings, token_ids)
        return _released_clip(tower, embeddings, token_ids, self.num_classes)


def _released_clip(tower: ClipTextTower, embeddings: Tensor, token_ids: Tensor, num_classes: int) -> Tensor:
    """Every token position attends, without a mask, across the prompts of its class at the same position; the end
    token's row is multiplied by the projection's weight untransposed. Only positions of end tokens are computed."""
    num_prompts, _, width = embeddings.shape
    positions, column = first_position(token_ids, tower.tokenizer.eos_id).unique(return_inverse=True)
    x = embeddings[:, positions] + tower.text_model.embeddings.position_embedding.weight[positions]
    x = x.view(num_classes, -1, len(positions), width).transpose(1, 2)
    x = tower.text_model.encoder(inputs_embeds=x.flatten(0, 1), is_causal=False).last_hidden_state
    x = x.view(num_classes, len(positions), -1, width).transpose(1, 2).flatten(0, 1)
    pooled = x[torch.arange(num_prompts, device=x.device), column]
    return tower.text_model.final_layer_norm(pooled) @ tower.text_projection.weight


def _released_conch(tower: ConchTextTower, embeddings: Tensor, token_ids: Tensor) -> Tensor:
    """A padding token in place of the class embedding, no mask at all, pooled at the largest token id."""
    conch = tower.transformer
    padding = conch.token_embedding.weight[conch.pad_id].expand(len(embeddings), 1, -1)
    x = torch.cat([embeddings, padding], dim=1) + conch.positional_embedding
    x = conch.ln_final(conch.transformer(x, attn_mask=None))
    return x[torch.arange(len(x), device=x.device), token_ids.argmax(dim=1)] @ conch.text_projection
