"""CONCH (Lu et al., Nature Medicine 2024): both sides from its weight file, with its networks from conch/.

Texts are read as CONCH itself encodes them: causal attention over the tokens, a learned class embedding behind them
(position 127), whose query does not see padding; its output, normalised and projected, is the text's feature.
"""

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor

import utils.torchvision_compat  # noqa: F401  (before timm and open_clip)
from conch.image_tower import WHOLE_FILE, WeightsError, load_image_tower
from conch.text_tower import load_text_transformer
from conch.tokenizer import TOKENIZER_FILE, ConchTokenizer, find_tokenizer_file
from models.vlms.catalogue import CONCH
from models.vlms.heads import make_head, matrix_layer, unreadable
from models.vlms.loading import check_file, first_line
from models.vlms.places import ModelFiles
from models.vlms.preprocessing import Preprocessing
from models.vlms.sides import Family, ImageSide, ReleasedReading
from models.vlms.text_transformer import ClassTokenTextSide
from utils.errors import Fault, UserError
from utils.image_head import ImageHead

WEIGHTS = Path(__file__).resolve().parents[2] / "conch" / "pytorch_model.bin"
RELEASED_NAMES = {
    f"transformer.{name}": name for name in ("positional_embedding", "text_projection", "transformer", "ln_final")
}
OF_CONTRASTS = ("attn_pool_contrast", "ln_contrast", "proj_contrast")
HOW_TO_GET_WEIGHTS = (
    "ask for access at the hub repository MahmoodLab/CONCH, put its pytorch_model.bin into conch/ or name the file "
    "with --vlm_path"
)
HOW_TO_GET_TOKENIZER = (
    f"copy conch/open_clip_custom/tokenizers/{TOKENIZER_FILE} of CONCH's repository (github.com/mahmoodlab/CONCH) into "
    "conch/"
)


# ---- texts -----------------------------------------------------------------------------------------------------------


class ConchTextSide(ClassTokenTextSide):
    """CONCH's text side."""

    def released_reading(self) -> ReleasedReading:
        return ReleasedReading(self._encode_as_released, lambda *_: False, {"end": "end"}, RELEASED_NAMES, xavier=False)

    def _encode_as_released(self, embeddings: Tensor, token_ids: Tensor, pooled: Tensor, num_classes: int) -> Tensor:
        """A padding token in place of the class embedding, no mask at all, pooled at the largest token id."""
        tower = self.transformer
        padding = tower.token_embedding.weight[tower.pad_id].expand(len(embeddings), 1, -1)
        x = torch.cat([embeddings, padding], dim=1) + tower.positional_embedding
        x = tower.ln_final(tower.transformer(x, attn_mask=None))
        features: Tensor = x[torch.arange(len(x), device=x.device), token_ids.argmax(dim=1)] @ tower.text_projection
        return features


def load_text(files: ModelFiles) -> ConchTextSide:
    """CONCH's text side from its weight file. Raises UserError where a file is missing or does not fit."""
    (weights,) = files.weights
    state = files.tensors
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
    check_file(tokenizer_file, "vlm.tokenizer")
    try:
        transformer, logit_scale = load_text_transformer(weights, state)
        return ConchTextSide(transformer, logit_scale, ConchTokenizer(tokenizer_file))
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


def load_image(files: ModelFiles) -> ImageSide:
    """CONCH's image side from its weight file. Its preprocessing is CLIP's; its features are of unit length.

    Raises UserError where its image tower is not there or does not fit.
    """
    (weights,) = files.weights
    try:
        tower = load_image_tower(weights, files.tensors)
    except WeightsError as error:
        fault = Fault("vlm.incomplete", str(error.file), error.found, error.expected, HOW_TO_GET_WEIGHTS)
        raise UserError(fault) from error
    size, heads = tower.image_size, tower.trunk.blocks[0].attn.num_heads
    settings = {"num_heads": heads, "pooler_heads": tower.attn_pool_contrast.attn.num_heads}
    return ImageSide(tower, tower.output_dim, Preprocessing(size, size), settings, normalised=True)


def load_head(files: ModelFiles) -> ImageHead:
    """What CONCH does to its pooled tokens, which other tools save as features: as wide as projected ones, and longer.

    Raises UserError where the matrix is not there, or not square.
    """
    expected = f"a square matrix, as in {WHOLE_FILE}"
    layer = matrix_layer(files, "visual.proj_contrast", expected)
    height, width = layer.matrix.shape
    if height != width:
        raise unreadable(files, f"the matrix {layer.name} is {height} x {width}", expected)
    return make_head(files, layer, normalised=True, lengths_tell=True)


# ---- the family ------------------------------------------------------------------------------------------------------


def own_weights() -> Path:
    """The weight file of conch/. Raises UserError where it is not there."""
    if not WEIGHTS.is_file():
        raise UserError(Fault("vlm.missing", str(WEIGHTS), "CONCH's weights are not there", mend=HOW_TO_GET_WEIGHTS))
    return WEIGHTS


def _recognises(names: Collection[str]) -> bool:
    """By what it has for contrasts and not for captions; a file of texts alone, by the class embedding that CoCa's text
    tower has as well."""
    is_coca = any(name.startswith(("visual.class_embedding", "visual.attn_pool.", "text_decoder.")) for name in names)
    is_conch = any(part in name for name in names for part in OF_CONTRASTS)
    return is_conch or ("text.cls_emb" in names and not is_coca)


FAMILY = Family(
    name=CONCH,
    recognises=_recognises,
    load_text=load_text,
    load_image=load_image,
    own_weights=own_weights,
    load_head=load_head,
)
