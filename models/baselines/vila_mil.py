"""ViLa-MIL (Shi et al., CVPR 2024): learned prototypes read each scale of a slide, and its texts read both.

Text: T = tower([start] [context] [description] [end]), one low and one high prompt a class.
Image, per scale, with the same weights for both:

    C = LN(Attn1(Q; x) + Q)            Q: the prototypes, attending over the patches x
    v = sum_i alpha_i C_i              alpha: softmax over the prototypes of the gated attention
    T' = T + Attn2(T; [C; x])
    logits = T'_low v_low + T'_high v_high

``--variant released`` is the authors' code: the text feature is read before the last tokens of the prompt, and the text
tower is trained with everything else.
"""

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.baselines.gated_attention import GatedAttention
from models.kind import Inputs, Kind, bag_loss
from models.losses import BagLoss, bag_output
from models.prompt_notes import notes_of_cut
from models.prompts import PromptLearner, PromptTokens, PublishedEncoding
from models.vlms import TextSide
from utils.config import Config
from utils.errors import Fault, UserError
from utils.interface import Bag, ModelOutput, SlideModel

HIDDEN = 192
PROTOTYPES = 16


class EarlyEncoding(PublishedEncoding):
    """The released code's: a CLIP tower read where the end token stood before the context was put in front, that is,
    as many places too early as there are context tokens."""

    def __init__(self, tower: TextSide, tokens: PromptTokens, num_classes: int, contexts: Tensor):
        super().__init__(tower, tokens, num_classes, contexts)
        assert self.tree is not None
        self.tree.last = self.tree.last - tokens.context_positions.shape[1]


def trained_copy(tower: TextSide) -> TextSide:
    """A copy of a frozen tower with everything trained but the token embeddings."""
    trained = deepcopy(tower).requires_grad_(True)
    trained.token_embedding.requires_grad_(False)
    return trained


class OneHeadAttention(nn.Module):
    """PyTorch's MultiheadAttention with one head, for few queries and many rows: the maps of keys and values are
    applied to the queries and to the mixed rows, q^T (Wk x) = (Wk^T q)^T x, not to every row. The keys' bias would move
    all scores of a query alike."""

    def __init__(self, dim: int):
        super().__init__()
        self.maps = nn.MultiheadAttention(dim, num_heads=1)

    def forward(self, queries: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """queries (Q, D), rows (N, D) -> (Q, D) and the weights (Q, N)."""
        to_query, to_key, to_value = self.maps.in_proj_weight.chunk(3)
        query_bias, _, value_bias = self.maps.in_proj_bias.chunk(3)
        query = F.linear(queries, to_query, query_bias) / queries.shape[1] ** 0.5
        weights = (query @ to_key @ rows.t()).softmax(1)
        return self.maps.out_proj(F.linear(weights @ rows, to_value, value_bias)), weights


class ViLaMIL(SlideModel):
    """Sizes: P low and N high patches, K classes, D features, R prototypes.

    prompts: K low and K high prompts -> T_low (K, D), T_high (K, D), not normalised. hidden: width of the gated
    attention.
    """

    def __init__(
        self, prompts: PromptLearner, bag_loss: BagLoss, num_prototypes: int = PROTOTYPES, hidden: int = HIDDEN
    ):
        super().__init__()
        self.prompts = prompts
        dim = prompts.tower.output_dim
        self.prototypes = nn.Parameter(torch.empty(num_prototypes, dim))
        nn.init.trunc_normal_(self.prototypes, std=0.02)
        self.read_patches = OneHeadAttention(dim)
        self.norm = nn.LayerNorm(dim)
        self.attention = GatedAttention(dim, hidden)
        self.read_slide = OneHeadAttention(dim)
        self.bag_loss = bag_loss
        self.trains_tower = any(parameter.requires_grad for parameter in prompts.tower.parameters())

    def forward(self, bag: Bag) -> ModelOutput:
        """logits (K,); details, each for the low and the high scale: ``prototypes`` (R, D), ``attention`` (R,) over
        them, ``patch_attention`` (R, patches), ``image`` (D,), ``text`` (K, D), ``logits`` (K,). ``attention`` (1, N):
        the high patches' part in the slide, by way of the prototypes."""
        if self.trains_tower:
            self.prompts.forget()  # what is kept there is good for as long as the tower does not change
        low_text, high_text = self.prompts()
        low = self._scale(bag.low_features, low_text)
        high = self._scale(bag.patches, high_text)
        logits = low["logits"] + high["logits"]
        details = {f"low_{name}": value for name, value in low.items()}
        details |= {f"high_{name}": value for name, value in high.items()}
        details["attention"] = (high["attention"] @ high["patch_attention"]).unsqueeze(0)
        return bag_output(self.bag_loss, logits, bag.label, details)

    def _scale(self, patches: Tensor, text: Tensor) -> dict[str, Tensor]:
        """One scale's patches and its K text features -> what ``forward`` lists."""
        read, patch_attention = self.read_patches(self.prototypes, patches)
        prototypes = self.norm(read + self.prototypes)
        attention = self.attention(prototypes).squeeze(1).softmax(0)
        image = attention @ prototypes
        text = text + self.read_slide(text, torch.cat([prototypes, patches]))[0]
        return {
            "prototypes": prototypes,
            "attention": attention,
            "patch_attention": patch_attention,
            "image": image,
            "text": text,
            "logits": text @ image,
        }

    def notes(self) -> list[str]:
        return notes_of_cut(self.prompts.num_cut, len(self.prompts.token_ids), self.prompts.tower)


def _build(config: Config, inputs: Inputs) -> ViLaMIL:
    tower = inputs.tower
    assert tower is not None
    encoding = PublishedEncoding
    if config.variant == "released":
        if not tower.pools_at_end:
            raise UserError(
                Fault(
                    "vlm.not_released",
                    "--model_type ViLa_MIL --variant released",
                    "the released code reads CLIP's text tower alone",
                    mend="train with --variant paper",
                )
            )
        encoding, tower = EarlyEncoding, trained_copy(tower)
    prompts = PromptLearner(
        tower,
        [*inputs.low_texts],
        [*inputs.high_texts],
        inputs.num_classes,
        config.num_context_tokens,
        encoding=encoding,
    )
    return ViLaMIL(prompts, bag_loss(config, inputs), config.prototype_number)


KIND = Kind(_build, form=lambda config: "both")
