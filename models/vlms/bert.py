"""Text sides over BERT: every token sees every other, but for padding; pooled at the first token."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from models.vlms.loading import count_layers
from models.vlms.prefix_tree import PrefixTree
from models.vlms.sides import TextSide, Tokenizer

HEAD_WIDTH = 64  # of every published BERT
POOLERS = ("pooler", "cls", "mean")


class BertTextSide(TextSide):
    """BERT with a projection behind it.

    bert: transformers' BertModel or one alike. project: pooled states (N, W) -> features (N, D). pool: "pooler" for
    BERT's own, a tanh layer over the first token; "cls" for the first token's state; "mean" over the tokens.
    """

    def __init__(
        self,
        bert: Any,
        project: nn.Module,
        pool: str,
        logit_scale: Tensor,
        tokenizer: Tokenizer,
        context_length: int,
        output_dim: int,
    ):
        super().__init__(tokenizer, logit_scale.reshape(()), context_length, bert.config.hidden_size, output_dim)
        assert pool in POOLERS
        self.bert = bert
        self.project = project
        self.pool = pool

    @property
    def token_embedding(self) -> nn.Module:
        embedding: nn.Module = self.bert.get_input_embeddings()
        return embedding

    def encode_prompts(self, embeddings: Tensor, token_ids: Tensor, tree: PrefixTree | None = None) -> Tensor:
        """Padding is neither seen nor computed, but for that of the longest text."""
        mask = token_ids != self.special_tokens.padding
        length = int(mask.sum(1).max())
        mask = mask[:, :length].long()
        given = self.bert(inputs_embeds=embeddings[:, :length], attention_mask=mask)
        if self.pool == "pooler":
            pooled = given.pooler_output
        elif self.pool == "cls":
            pooled = given.last_hidden_state[:, 0]
        else:
            weights = mask.unsqueeze(-1).to(given.last_hidden_state.dtype)
            pooled = (given.last_hidden_state * weights).sum(1) / weights.sum(1)
        features: Tensor = self.project(pooled)
        return features


def bert_config(tensors: Mapping[str, Tensor], said: Mapping[str, Any]) -> Any:
    """The configuration of a BERT as its weights tell it. said: what a configuration says of the number of heads and of
    the numbers that weights do not tell; by default those of BERT base.

    Raises KeyError where a weight that tells a size is missing.
    """
    from transformers import BertConfig

    vocabulary, width = tensors["embeddings.word_embeddings.weight"].shape
    told = {name: said[name] for name in ("layer_norm_eps", "hidden_act", "pad_token_id") if name in said}
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=count_layers(tensors, "encoder.layer."),
        num_attention_heads=said.get("num_attention_heads") or max(1, width // HEAD_WIDTH),
        intermediate_size=len(tensors["encoder.layer.0.intermediate.dense.weight"]),
        max_position_embeddings=len(tensors["embeddings.position_embeddings.weight"]),
        type_vocab_size=len(tensors["embeddings.token_type_embeddings.weight"]),
        **told,
    )


def make_bert(config: Any, with_pooler: bool) -> nn.Module:
    """A BertModel of a configuration, not initialised for use."""
    from transformers import BertModel

    model: nn.Module = BertModel(config, add_pooling_layer=with_pooler)
    return model


class TextTower(nn.Module):
    """A BERT and what projects its states, by the names of a weight file."""

    def __init__(self, **parts: nn.Module):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
