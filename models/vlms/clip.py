"""CLIP models of Hugging Face, through transformers: PLIP, QuiltNet and any other."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import utils.torchvision_compat  # noqa: F401  (before transformers)
from models.vlms.catalogue import CLIP
from models.vlms.heads import linear_layer, make_head
from models.vlms.loading import build, only_tensor, reading_config, with_prefix, without_position_ids
from models.vlms.places import CONFIG, ModelFiles
from models.vlms.prefix_tree import Block, PrefixTree, first_position, last_states
from models.vlms.preprocessing import Standard, transformers_preprocessing
from models.vlms.sides import Family, ImageSide, ReleasedReading, TextSide, Tokenizer
from models.vlms.tokenizers import clip_tokenizer
from utils.image_head import ImageHead

MODEL_TYPE = "clip"
QUICK_GELU = 1.702  # CLIP's activation: x sigmoid(1.702 x)
RELEASED_NAMES = {
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_projection.weight": "text_projection",
    "text_model.encoder": "transformer",
    "text_model.final_layer_norm": "ln_final",
}


# ---- texts -----------------------------------------------------------------------------------------------------------


class ClipTextSide(TextSide):
    """The text side of transformers' CLIPModel or CLIPTextModelWithProjection: causal, pooled at the first end."""

    pools_at_end = True

    def __init__(self, clip: Any, tokenizer: Tokenizer):
        sizes = clip.text_model.config
        super().__init__(
            tokenizer, clip.logit_scale, sizes.max_position_embeddings, sizes.hidden_size,
            clip.text_projection.out_features,
        )  # fmt: skip
        self.text_model: Any = clip.text_model
        self.text_projection: Any = clip.text_projection

    @property
    def token_embedding(self) -> nn.Module:
        embedding: nn.Module = self.text_model.embeddings.token_embedding
        return embedding

    def prefix_tree(self, token_ids: Tensor, groups: Tensor | None = None) -> PrefixTree:
        """The distinct prefixes of (N, L) ids, up to each one's first end token."""
        lengths = self._ends(token_ids) + 1
        return PrefixTree(token_ids[:, : int(lengths.max())], lengths, groups)

    def encode_prompts(self, embeddings: Tensor, token_ids: Tensor, tree: PrefixTree | None = None) -> Tensor:
        tree = tree or self.prefix_tree(token_ids)
        length = tree.nodes.shape[1]
        x = embeddings[:, :length] + self.text_model.embeddings.position_embedding.weight[:length]
        layers = self.text_model.encoder.layers
        x = last_states([_block(layer) for layer in layers], x, tree, layers[0].self_attn.num_heads)
        features: Tensor = self.text_projection(self.text_model.final_layer_norm(x))
        return features

    def attention_norms(self) -> Sequence[nn.Module]:
        return [layer.layer_norm1 for layer in self.text_model.encoder.layers]

    def released_reading(self) -> ReleasedReading:
        return ReleasedReading(
            self._encode_as_released, _is_constant_as_released, {"end": "end", "middle": "released_middle"},
            RELEASED_NAMES, xavier=True,
        )  # fmt: skip

    def _encode_as_released(self, embeddings: Tensor, token_ids: Tensor, pooled: Tensor, num_classes: int) -> Tensor:
        """Every token position attends, without a mask, across the prompts of its class at the same position; the end
        token's row is multiplied by the projection's weight untransposed. Only positions of end tokens are computed."""
        num_prompts, _, width = embeddings.shape
        positions, column = pooled.unique(return_inverse=True)
        x = embeddings[:, positions] + self.text_model.embeddings.position_embedding.weight[positions]
        x = x.view(num_classes, -1, len(positions), width).transpose(1, 2)
        x = self.text_model.encoder(inputs_embeds=x.flatten(0, 1), is_causal=False).last_hidden_state
        x = x.view(num_classes, len(positions), -1, width).transpose(1, 2).flatten(0, 1)
        ends = x[torch.arange(num_prompts, device=x.device), column]
        features: Tensor = self.text_model.final_layer_norm(ends) @ self.text_projection.weight
        return features

    def _ends(self, token_ids: Tensor) -> Tensor:
        """The first end token's place in each row: (N, L) -> (N,)."""
        return first_position(token_ids, self.special_tokens.end)


def _is_constant_as_released(pooled: Tensor, context_positions: Tensor) -> bool:
    """So it is with the context in front, where no feature of any prompt is taken from."""
    return not bool(torch.isin(context_positions, pooled).any())


def _block(layer: Any) -> Block:
    attention = layer.self_attn

    def attend(x: Tensor) -> Sequence[Tensor]:
        return attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)

    is_quick = layer.mlp.config.hidden_act == "quick_gelu"
    mlp = partial(_quick_gelu_mlp, layer.mlp) if is_quick else layer.mlp
    return Block(layer.layer_norm1, attend, attention.out_proj, layer.layer_norm2, mlp)


def _quick_gelu_mlp(mlp: Any, x: Tensor) -> Tensor:
    """As ``mlp`` itself: x sigmoid(a x) = silu(a x) / a, one pass, with both factors left to the matrix products."""
    hidden = F.silu(torch.addmm(mlp.fc1.bias, x, mlp.fc1.weight.t(), beta=QUICK_GELU, alpha=QUICK_GELU))
    return torch.addmm(mlp.fc2.bias, hidden, mlp.fc2.weight.t(), alpha=1 / QUICK_GELU)


def load_text(files: ModelFiles) -> ClipTextSide:
    """The text side of a CLIP model. The vision side is not looked at.

    Raises UserError where config.json is another model's, where weights of the text side are missing or do not fit, and
    where the tokenizer cannot be had.
    """
    from transformers import CLIPTextModelWithProjection

    config = _config(files, without="vision_config").text_config
    tensors = with_prefix(files.tensors, "text_model.", "text_projection.")
    clip: Any = build(
        lambda: CLIPTextModelWithProjection._from_config(config, attn_implementation="sdpa"),
        without_position_ids(tensors), "text", files.told,
    )  # fmt: skip
    clip.logit_scale = only_tensor(files.tensors, "logit_scale", files.told)
    return ClipTextSide(clip, clip_tokenizer(files.folder, config.vocab_size))


# ---- images ----------------------------------------------------------------------------------------------------------


class ClipImageTower(nn.Module):
    """The vision side of a transformers CLIP: what its get_image_features gives, not normalised."""

    def __init__(self, clip: Any):
        super().__init__()
        self.clip: Any = clip

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.clip(pixel_values=images).image_embeds
        return features


def load_image(files: ModelFiles) -> ImageSide:
    """The image side of a CLIP model. The text side is not looked at.

    Raises UserError where config.json is another model's, and where weights of the vision side are missing or do not
    fit.
    """
    from transformers import CLIPVisionModelWithProjection

    config = _config(files, without="text_config").vision_config
    tensors = with_prefix(files.tensors, "vision_model.", "visual_projection.")
    clip = build(lambda: CLIPVisionModelWithProjection(config), without_position_ids(tensors), "image", files.told)
    transform = transformers_preprocessing(files.folder, config.image_size, Standard())
    settings = {name: getattr(config, name) for name in ("hidden_act", "num_attention_heads", "layer_norm_eps")}
    return ImageSide(ClipImageTower(clip), config.projection_dim, transform, settings)


def load_head(files: ModelFiles) -> ImageHead:
    """What CLIP does to its vision model's pooled output. Raises UserError where the projection is not there."""
    return make_head(files, linear_layer(files, "visual_projection"))


# ---- the family ------------------------------------------------------------------------------------------------------


def _config(files: ModelFiles, without: str) -> Any:
    """The configuration of a CLIP, but for one side's part, which may be at fault. Raises UserError."""
    from transformers import CLIPConfig

    said = files.needed_config(MODEL_TYPE)
    own = {name: value for name, value in said.items() if name not in (without, f"{without}_dict")}
    with reading_config(str(files.folder / CONFIG)):
        config: Any = CLIPConfig.from_dict(own)
        config.text_config.projection_dim = config.vision_config.projection_dim = config.projection_dim
        return config


FAMILY = Family(
    name=CLIP,
    recognises=lambda names: any(
        name.startswith(("text_model.", "vision_model.", "visual_projection")) for name in names
    ),
    load_text=load_text,
    load_image=load_image,
    model_types=(MODEL_TYPE,),
    load_head=load_head,
)
