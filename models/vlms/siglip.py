"""SigLIP and SigLIP 2 of fixed size, through transformers: MedSigLIP.

Texts are filled up to the model's length with the end token or padding, which every token sees; the state of the last
position is the text's feature. There is no start token, so context in front of a text stands at the first position.
"""

from typing import Any

from torch import Tensor, nn

import utils.torchvision_compat  # noqa: F401  (before transformers)
from models.vlms.bert import TextTower
from models.vlms.catalogue import SIGLIP
from models.vlms.loading import build, only_tensor, reading_config, with_prefix, without_position_ids
from models.vlms.places import CONFIG, ModelFiles
from models.vlms.prefix_tree import PrefixTree
from models.vlms.preprocessing import HALF, Standard, transformers_preprocessing
from models.vlms.sides import Family, ImageSide, TextSide, Tokenizer
from models.vlms.tokenizers import SENTENCEPIECE_FILES, own_tokenizer

MODEL_TYPE = "siglip"


class SiglipTextSide(TextSide):
    """The text side of a transformers SiglipModel. text_model: its SiglipTextModel."""

    def __init__(self, text_model: Any, logit_scale: Tensor, tokenizer: Tokenizer):
        sizes = text_model.config
        super().__init__(
            tokenizer, logit_scale.reshape(()), sizes.max_position_embeddings, sizes.hidden_size, sizes.projection_size
        )
        self.text_model: Any = text_model

    @property
    def token_embedding(self) -> nn.Module:
        embedding: nn.Module = self.text_model.embeddings.token_embedding
        return embedding

    def encode_prompts(self, embeddings: Tensor, token_ids: Tensor, tree: PrefixTree | None = None) -> Tensor:
        tower = self.text_model
        x = tower.embeddings(inputs_embeds=embeddings)
        x = tower.encoder(inputs_embeds=x, attention_mask=None).last_hidden_state
        features: Tensor = tower.head(tower.final_layer_norm(x[:, -1]))
        return features


def load_text(files: ModelFiles) -> SiglipTextSide:
    """The text side. The vision side is not looked at.

    Raises UserError where config.json is another model's, where weights are missing or do not fit, and where the
    tokenizer is not in the folder.
    """
    from transformers import SiglipTextModel

    config = _config(files, without="vision_config").text_config
    tensors = without_position_ids(with_prefix(files.tensors, "text_model."))
    tower: Any = build(lambda: TextTower(text_model=SiglipTextModel._from_config(config)), tensors, "text", files.told)
    tokenizer = own_tokenizer(files.folder, config.vocab_size, SENTENCEPIECE_FILES)
    return SiglipTextSide(tower.text_model, only_tensor(files.tensors, "logit_scale", files.told), tokenizer)


class SiglipImageTower(nn.Module):
    """The vision side of a transformers SiglipModel: what its get_image_features gives, not normalised."""

    def __init__(self, config: Any):
        super().__init__()
        from transformers import SiglipVisionModel

        self.vision_model: Any = SiglipVisionModel._from_config(config)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.vision_model(pixel_values=images).pooler_output
        return features


def load_image(files: ModelFiles) -> ImageSide:
    """The image side. The text side is not looked at. Raises UserError as ``load_text``."""
    config = _config(files, without="text_config").vision_config
    tensors = without_position_ids(with_prefix(files.tensors, "vision_model."))
    tower = build(lambda: SiglipImageTower(config), tensors, "image", files.told)
    transform = transformers_preprocessing(files.folder, config.image_size, Standard(HALF, HALF, squash=True))
    settings = {name: getattr(config, name) for name in ("hidden_act", "num_attention_heads", "layer_norm_eps")}
    return ImageSide(tower, config.hidden_size, transform, settings)


def _config(files: ModelFiles, without: str) -> Any:
    """The configuration of a SigLIP, but for one side's part, which may be at fault. Raises UserError."""
    from transformers import SiglipConfig

    said = files.needed_config(MODEL_TYPE)
    with reading_config(str(files.folder / CONFIG)):
        config: Any = SiglipConfig.from_dict({name: value for name, value in said.items() if name != without})
        if not config.vision_config.vision_use_head:
            raise ValueError("vision_use_head is false: its features are not those of the joint space")
        return config


FAMILY = Family(
    name=SIGLIP,
    recognises=lambda names: any(name.startswith(("text_model.head.", "vision_model.head.")) for name in names),
    load_text=load_text,
    load_image=load_image,
    model_types=(MODEL_TYPE,),
)
