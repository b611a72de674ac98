"""Text sides over open_clip's TextTransformer, causal: pooled at the end token, or at a class embedding behind it."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.vlms.prefix_tree import Block, PrefixTree, first_position, last_states
from models.vlms.sides import TextSide, Tokenizer

CLASS_TOKEN = -1  # stands for the class embedding among the token ids


class CausalTextSide(TextSide):
    """A text's feature is the state of its end token, the first of its kind."""

    pools_at_end = True

    def __init__(self, transformer: Any, logit_scale: Tensor, tokenizer: Tokenizer):
        projection = transformer.text_projection
        output_dim = projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1]
        super().__init__(tokenizer, logit_scale, transformer.context_length, transformer.width, output_dim)
        self.transformer: Any = transformer

    @property
    def token_embedding(self) -> nn.Module:
        embedding: nn.Module = self.transformer.token_embedding
        return embedding

    def prefix_tree(self, token_ids: Tensor, groups: Tensor | None = None) -> PrefixTree:
        """The distinct prefixes of (N, L) ids, up to each one's first end token."""
        lengths = first_position(token_ids, self.special_tokens.end) + 1
        return PrefixTree(token_ids[:, : int(lengths.max())], lengths, groups)

    def encode_prompts(self, embeddings: Tensor, token_ids: Tensor, tree: PrefixTree | None = None) -> Tensor:
        tree = tree or self.prefix_tree(token_ids)
        length = tree.nodes.shape[1]
        x = embeddings[:, :length] + self.transformer.positional_embedding[:length]
        return self._features(last_states(self._blocks(), x, tree, self.transformer.heads))

    def attention_norms(self) -> Sequence[nn.Module]:
        return [block.ln_1 for block in self.transformer.transformer.resblocks]

    def _blocks(self) -> list[Block]:
        return [_block(block) for block in self.transformer.transformer.resblocks]

    def _features(self, states: Tensor) -> Tensor:
        states, projection = self.transformer.ln_final(states), self.transformer.text_projection
        features: Tensor = projection(states) if isinstance(projection, nn.Linear) else states @ projection
        return features


class ClassTokenTextSide(CausalTextSide):
    """CoCa's and CONCH's: a learned class embedding stands behind the tokens, at the last position; its query does not
    see padding, and its state is the text's feature."""

    pools_at_end = False

    def prefix_tree(self, token_ids: Tensor, groups: Tensor | None = None) -> PrefixTree:
        """The distinct prefixes of (N, L) ids. Each sequence is its tokens, the first padding token (the class mask of
        CoCa is shifted by one, so it takes part) and the class embedding."""
        visible = self._num_visible(token_ids)
        ids = F.pad(token_ids, (0, 1)).scatter(1, visible.unsqueeze(1), CLASS_TOKEN)
        return PrefixTree(ids[:, : int(visible.max()) + 1], visible + 1, groups)

    def encode_prompts(self, embeddings: Tensor, token_ids: Tensor, tree: PrefixTree | None = None) -> Tensor:
        tower = self.transformer
        tree = tree or self.prefix_tree(token_ids)
        length = tree.nodes.shape[1] - 1
        x = F.pad(embeddings[:, :length] + tower.positional_embedding[:length], (0, 0, 0, 1))
        is_class = torch.arange(length + 1, device=x.device) == tree.last.unsqueeze(1)
        x = torch.where(is_class.unsqueeze(-1), tower.cls_emb + tower.positional_embedding[-1], x)
        # the class embedding sees itself only where no padding token stands before it
        has_padding = (token_ids == tower.pad_id).any(1)
        blind = torch.diag_embed(is_class & has_padding.unsqueeze(1))
        mask = torch.ones(length + 1, length + 1, dtype=torch.bool, device=x.device).tril() & ~blind
        return self._features(last_states(self._blocks(), x, tree, tower.heads, mask.unsqueeze(1)))

    def _num_visible(self, token_ids: Tensor) -> Tensor:
        """How many tokens the class embedding sees: (N, L) -> (N,)."""
        num_tokens: Tensor = (token_ids != self.transformer.pad_id).sum(1)
        return (num_tokens + 1).clamp(max=token_ids.shape[1])


def _block(block: Any) -> Block:
    def attend(x: Tensor) -> Sequence[Tensor]:
        return F.linear(x, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)

    def project(x: Tensor) -> Tensor:
        projected: Tensor = block.ls_1(block.attn.out_proj(x))
        return projected

    def mlp(x: Tensor) -> Tensor:
        through: Tensor = block.ls_2(block.mlp(x))
        return through

    return Block(block.ln_1, attend, project, block.ln_2, mlp)
