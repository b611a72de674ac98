"""CONCH (Lu et al., Nature Medicine 2024): both sides from its weight file, with its networks from conch/.

Texts are read as CONCH itself encodes them: causal attention over the tokens, a learned class embedding behind them
(position 127), whose query does not see padding; its output, normalised and projected, is the text's feature.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import utils.torchvision_compat  # noqa: F401  (before timm and open_clip)
from conch.image_tower import WeightsError, load_image_tower
from conch.text_tower import load_text_transformer
from conch.tokenizer import TOKENIZER_FILE, ConchTokenizer, find_tokenizer_file
from models.vlms.loading import first_line
from models.vlms.prefix_tree import Block, PrefixTree, last_states
from models.vlms.preprocessing import Preprocessing
from models.vlms.sides import Family, ImageSide, ReleasedReading, Source, TextSide, Tokenizer
from utils.errors import Fault, UserError
from utils.tensors import is_weight, read_state

NAME = "conch"
WEIGHTS = Path(__file__).resolve().parents[2] / "conch" / "pytorch_model.bin"
WEIGHT_SUFFIXES = {".bin", ".pt", ".pth"}
CLASS_TOKEN = -1  # stands for the class embedding among the token ids
RELEASED_NAMES = {
    f"transformer.{name}": name for name in ("positional_embedding", "text_projection", "transformer", "ln_final")
}
HOW_TO_GET_WEIGHTS = (
    "ask for access at the hub repository MahmoodLab/CONCH, put its pytorch_model.bin into conch/ or name the file "
    "with --vlm_path"
)
HOW_TO_GET_TOKENIZER = (
    f"copy conch/open_clip_custom/tokenizers/{TOKENIZER_FILE} of CONCH's repository (github.com/mahmoodlab/CONCH) into "
    "conch/"
)


# ---- texts -----------------------------------------------------------------------------------------------------------


class ConchTextSide(TextSide):
    """CONCH's text side over open_clip's TextTransformer."""

    def __init__(self, transformer: Any, logit_scale: Tensor, tokenizer: Tokenizer):
        output_dim = transformer.text_projection.shape[1]
        super().__init__(tokenizer, logit_scale, transformer.context_length, transformer.width, output_dim)
        self.transformer: Any = transformer

    @property
    def token_embedding(self) -> nn.Module:
        embedding: nn.Module = self.transformer.token_embedding
        return embedding

    def prefix_tree(self, token_ids: Tensor, groups: Tensor | None = None) -> PrefixTree:
        """The distinct prefixes of (N, L) ids. Each sequence is its tokens, the first padding token (CONCH's class mask
        is shifted by one, so it takes part) and the class embedding."""
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
        x = last_states(
            [_block(block) for block in tower.transformer.resblocks], x, tree, tower.heads, mask.unsqueeze(1)
        )
        features: Tensor = tower.ln_final(x) @ tower.text_projection
        return features

    def attention_norms(self) -> Sequence[nn.Module]:
        return [block.ln_1 for block in self.transformer.transformer.resblocks]

    def released_reading(self) -> ReleasedReading:
        return ReleasedReading(self._encode_as_released, lambda *_: False, RELEASED_NAMES, xavier=False)

    def _encode_as_released(self, embeddings: Tensor, token_ids: Tensor, num_classes: int) -> Tensor:
        """A padding token in place of the class embedding, no mask at all, pooled at the largest token id."""
        tower = self.transformer
        padding = tower.token_embedding.weight[tower.pad_id].expand(len(embeddings), 1, -1)
        x = torch.cat([embeddings, padding], dim=1) + tower.positional_embedding
        x = tower.ln_final(tower.transformer(x, attn_mask=None))
        features: Tensor = x[torch.arange(len(x), device=x.device), token_ids.argmax(dim=1)] @ tower.text_projection
        return features

    def _num_visible(self, token_ids: Tensor) -> Tensor:
        """How many tokens the class embedding sees: (N, L) -> (N,)."""
        num_tokens: Tensor = (token_ids != self.transformer.pad_id).sum(1)
        return (num_tokens + 1).clamp(max=token_ids.shape[1])


def _block(block: Any) -> Block:
    def attend(x: Tensor) -> Sequence[Tensor]:
        return F.linear(x, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)

    return Block(block.ln_1, attend, block.attn.out_proj, block.ln_2, block.mlp)


def load_text(weights: Path) -> ConchTextSide:
    """CONCH's text side from its weight file. Raises UserError where a file is missing or does not fit."""
    _check_there(weights)
    tokenizer_file = find_tokenizer_file(beside=weights.parent)
    if tokenizer_file is None:
        raise UserError(
            Fault(
                "vlm.tokenizer",
                f"conch/{TOKENIZER_FILE}",
                f"CONCH's tokenizer file is not there, nor beside {weights}, nor in an installed CONCH package",
                mend=HOW_TO_GET_TOKENIZER,
            )
        )
    state = _read(weights)
    try:
        transformer, logit_scale = load_text_transformer(weights, state)
        return ConchTextSide(transformer, logit_scale.reshape(()), ConchTokenizer(tokenizer_file))
    except Exception as error:  # each file format has exceptions of its own
        raise UserError(
            Fault(
                "vlm.incomplete",
                str(weights),
                f"cannot be loaded with {tokenizer_file.name} as CONCH's text tower ({first_line(error)})",
                expected="text.* and logit_scale of CONCH, sizes in open_clip_config.json where not the published ones",
            )
        ) from error


# ---- images ----------------------------------------------------------------------------------------------------------


def load_image(weights: Path) -> ImageSide:
    """CONCH's image side from its weight file. Its preprocessing is CLIP's; its features are of unit length.

    Raises UserError where the file is missing, or where its image tower is not there or does not fit.
    """
    _check_there(weights)
    try:
        tower = load_image_tower(weights, _read(weights))
    except WeightsError as error:
        fault = Fault("vlm.incomplete", str(error.file), error.found, error.expected, HOW_TO_GET_WEIGHTS)
        raise UserError(fault) from error
    size = tower.image_size
    return ImageSide(tower, tower.output_dim, Preprocessing(size, size), normalised=True)


# ---- the family ------------------------------------------------------------------------------------------------------


def _check_there(weights: Path) -> None:
    if not weights.is_file():
        raise UserError(Fault("vlm.missing", str(weights), "CONCH's weights are not there", mend=HOW_TO_GET_WEIGHTS))


def _read(weights: Path) -> dict[str, Tensor]:
    """The tensors of the file, all of them floating-point numbers."""
    try:
        state = read_state(weights)
    except UserError as error:
        found = "; ".join(fault.found for fault in error.faults)
        raise UserError(Fault("vlm.unreadable", str(weights), found, "CONCH's weights", HOW_TO_GET_WEIGHTS)) from error
    if others := [name for name, value in state.items() if not is_weight(value)]:
        found = f"{len(others)} tensors of whole numbers ({', '.join(others[:3])})"
        raise UserError(Fault("vlm.unreadable", str(weights), found, "CONCH's weights", HOW_TO_GET_WEIGHTS))
    return state


def _recognises(source: Source) -> bool:
    """A weight file; or the name of the feature extractor, unless the path is a Hugging Face folder."""
    if source.vlm_path and Path(source.vlm_path).suffix in WEIGHT_SUFFIXES:
        return True
    return source.feature_extractor == NAME and not source.holds("config.json")


def _weights(source: Source) -> Path:
    """The file itself, the ``pytorch_model.bin`` of a folder, or that of conch/."""
    return source.folder / WEIGHTS.name if source.folder else Path(source.vlm_path or WEIGHTS)


FAMILY = Family(
    name="CONCH",
    reads="CONCH's pytorch_model.bin",
    recognises=_recognises,
    load_text=lambda source: load_text(_weights(source)),
    load_image=lambda source: load_image(_weights(source)),
)
