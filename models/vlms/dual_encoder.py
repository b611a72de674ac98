"""VisionTextDualEncoder of transformers: any vision tower and any text tower of its kind, joined by two projections."""

from typing import Any

from torch import Tensor, nn

import utils.torchvision_compat  # noqa: F401  (before transformers)
from models.vlms.bert import BertTextSide
from models.vlms.catalogue import DUAL_ENCODER
from models.vlms.heads import linear_layer, make_head
from models.vlms.loading import build, build_converted, only_tensor, reading_config, renamed, without_position_ids
from models.vlms.places import CONFIG, ModelFiles
from models.vlms.preprocessing import HALF, Standard, transformers_preprocessing
from models.vlms.sides import Family, ImageSide
from models.vlms.tokenizers import own_tokenizer
from utils.errors import Fault, UserError
from utils.image_head import ImageHead

MODEL_TYPE = "vision-text-dual-encoder"


def load_text(files: ModelFiles) -> BertTextSide:
    """The text side. The vision side is not looked at.

    Raises UserError where config.json is another model's, where weights are missing or do not fit, and where the
    tokenizer is not in the folder.
    """
    config, output_dim = _part(files, "text_config")
    model = build_converted(config, _weights_of(files, "text_model."), "text", files.told)
    projection = _projection(files, "text_projection.weight", "text", config.hidden_size, output_dim)
    tokenizer = own_tokenizer(files.folder, config.vocab_size)
    offset = config.pad_token_id + 1 if config.model_type != "bert" else 0  # of RoBERTa's positions
    scale = only_tensor(files.tensors, "logit_scale", files.told)
    length = config.max_position_embeddings - offset
    return BertTextSide(model, projection, "pooler", scale, tokenizer, length, output_dim)


class DualEncoderImageTower(nn.Module):
    """The vision side: what get_image_features gives, not normalised."""

    def __init__(self, vision_model: Any, visual_projection: nn.Module):
        super().__init__()
        self.vision_model = vision_model
        self.visual_projection = visual_projection

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.visual_projection(self.vision_model(pixel_values=images).pooler_output)
        return features


def load_image(files: ModelFiles) -> ImageSide:
    """The image side. The text side is not looked at. Raises UserError as ``load_text``, and where the folder does not
    say how images are prepared."""
    config, output_dim = _part(files, "vision_config")
    if not (files.folder / "preprocessor_config.json").is_file():
        expected = "the one that was published with the model: its preprocessing is not guessed"
        raise UserError(Fault("vlm.missing", str(files.folder), "no preprocessor_config.json found", expected))
    model = build_converted(config, _weights_of(files, "vision_model."), "image", files.told)
    projection = _projection(files, "visual_projection.weight", "image", config.hidden_size, output_dim)
    tower = DualEncoderImageTower(model, projection)
    is_clip = config.model_type.startswith("clip")
    transform = transformers_preprocessing(
        files.folder, config.image_size, Standard() if is_clip else Standard(HALF, HALF, squash=True)
    )
    settings = {name: getattr(config, name) for name in ("hidden_act", "num_attention_heads", "layer_norm_eps")}
    return ImageSide(tower, output_dim, transform, settings)


def load_head(files: ModelFiles) -> ImageHead:
    """What it does to its vision model's pooled output. Raises UserError where the projection is not there."""
    return make_head(files, linear_layer(files, "visual_projection"))


def _part(files: ModelFiles, part: str) -> tuple[Any, int]:
    """The configuration of one side, and the width of the joint space. Raises UserError."""
    from transformers import AutoConfig

    said = files.needed_config(MODEL_TYPE)
    with reading_config(str(files.folder / CONFIG)):
        own = dict(said[part])
        config = AutoConfig.for_model(own.pop("model_type"), **own)
        return getattr(config, part) if config.model_type == "clip" else config, int(said["projection_dim"])


def _weights_of(files: ModelFiles, prefix: str) -> dict[str, Tensor]:
    return without_position_ids(renamed(files.tensors, prefix))


def _projection(files: ModelFiles, name: str, side: str, width: int, output_dim: int) -> nn.Module:
    weight = {"weight": files.tensors[name]} if name in files.tensors else {}
    return build(lambda: nn.Linear(width, output_dim, bias=False), weight, side, files.told)


FAMILY = Family(
    name=DUAL_ENCODER,
    recognises=lambda names: any(name.startswith("text_model.embeddings.word_embeddings.") for name in names),
    load_text=load_text,
    load_image=load_image,
    model_types=(MODEL_TYPE,),
    load_head=load_head,
)
