"""Frozen image encoders: patches to the features that the text tower of the same vision-language model belongs to.

CLIP's through transformers, CONCH's from conch/, any other through open_clip. All take patches as they are read from a
slide (uint8) and do the model's own preprocessing on the device they are on.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import utils.torchvision_compat  # noqa: F401  (before timm, open_clip and transformers)
from conch.image_tower import load_image_tower as load_conch_image_tower
from models.clip_loading import HOW_TO_DOWNLOAD, first_line, loading_clip
from models.image_preprocessing import Preprocessing, clip_preprocessing, open_clip_preprocessing
from models.text_towers import CONCH_WEIGHTS, PUBLISHED_VLMS
from utils.errors import UserError
from utils.files import read_json

ARCHITECTURE_PREFIX = "open_clip:"
HUB_PREFIX = "hf-hub:"
OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = tuple(
    f"open_clip_{name}" for name in ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin")
)


class ImageEncoder(nn.Module):
    """A frozen image tower with its preprocessing.

    name: the feature extractor's, for the attributes of feature files. input_size: pixels (S) that the tower sees.
    output_dim: width D of the features. projected: whether they lie in the space of the texts. normalised: whether
    they are of unit length.
    """

    def __init__(
        self, name: str, tower: nn.Module, output_dim: int, preprocessing: Preprocessing, normalised: bool = False
    ):
        super().__init__()
        self.name = name
        self.tower = tower
        self.output_dim = output_dim
        self.preprocessing = preprocessing
        self.input_size = preprocessing.input_size
        self.projected = True
        self.normalised = normalised

    def preprocess(self, images: Tensor) -> Tensor:
        """uint8 (N, 3, H, W) -> float32 (N, 3, S, S), on the images' device. Raises TypeError for another kind."""
        return self.preprocessing(images)

    def forward(self, images: Tensor) -> Tensor:
        """Features of patches: uint8 (N, 3, H, W) on the module's device -> float32 (N, D)."""
        return self.tower(self.preprocess(images)).float()


# ---- CLIP, through transformers --------------------------------------------------------------------------------------


class ClipImageTower(nn.Module):
    """The vision side of a transformers CLIPModel: what its get_image_features gives."""

    def __init__(self, clip: Any):
        super().__init__()
        self.clip: Any = clip

    def forward(self, images: Tensor) -> Tensor:
        return self.clip(pixel_values=images).image_embeds


def load_clip_encoder(name: str, source: str) -> ImageEncoder:
    """The image encoder of a CLIP model: a local Hugging Face folder or a hub id. Features are not normalised.

    Raises UserError where the model cannot be had, or where weights of the vision side are missing.
    """
    from transformers import CLIPConfig, CLIPVisionModelWithProjection

    with loading_clip(source, "config.json, model.safetensors"):
        config: Any = CLIPConfig.from_pretrained(source)
        config.vision_config.projection_dim = config.projection_dim
        loaded: Any = CLIPVisionModelWithProjection.from_pretrained(
            source, config=config.vision_config, output_loading_info=True, ignore_mismatched_sizes=True
        )
    clip, report = loaded
    _check_fit(source, "CLIP image tower", report["missing_keys"], report["mismatched_keys"])
    preprocessing = clip_preprocessing(source, config.vision_config.image_size)
    return ImageEncoder(name, ClipImageTower(clip.float()), config.projection_dim, preprocessing)


# ---- CONCH -----------------------------------------------------------------------------------------------------------


def load_conch_encoder(name: str, weights: Path) -> ImageEncoder:
    """CONCH's image encoder from its weight file: features are projected and normalised. Its preprocessing is CLIP's.

    Raises UserError where the file is missing, or where its image tower is not there or does not fit.
    """
    try:
        tower = load_conch_image_tower(weights)
    except ValueError as error:
        raise UserError(f"{error}. Put it into conch/ or name it with --vlm_path") from error
    size = tower.image_size
    return ImageEncoder(name, tower, tower.output_dim, Preprocessing(size, size), normalised=True)


# ---- any model of open_clip ------------------------------------------------------------------------------------------


class OpenClipImageTower(nn.Module):
    """The vision side of an open_clip model: what its encode_image gives."""

    def __init__(self, visual: nn.Module):
        super().__init__()
        self.visual = visual

    def forward(self, images: Tensor) -> Tensor:
        features = self.visual(images)
        return features[0] if isinstance(features, tuple) else features  # CoCa's tower gives tokens too


def load_open_clip_encoder(name: str, config: Mapping[str, Any], weights: Path, told_by: str) -> ImageEncoder:
    """The image encoder of an open_clip model; its text side is not built. Features are not normalised.

    config: ``model_cfg`` and, where there is one, ``preprocess_cfg``, as in open_clip_config.json. told_by: where it
    is from. Raises UserError where it describes no model, and where weights are missing or do not fit it.
    """
    from open_clip.factory import load_state_dict
    from open_clip.model import _build_vision_tower

    try:
        model = config["model_cfg"]
        vision = {**model["vision_cfg"], "timm_model_pretrained": False}
        tower = OpenClipImageTower(_build_vision_tower(model["embed_dim"], vision, model.get("quick_gelu", False)))
        preprocessing = open_clip_preprocessing(tower.visual.image_size, config.get("preprocess_cfg") or {})
    except Exception as error:  # what open_clip and timm make of a wrong description
        raise UserError(
            f"{told_by}: does not describe an image tower that open_clip builds ({type(error).__name__}: "
            f"{first_line(error)}); expected the {OPEN_CLIP_CONFIG} of an open_clip model"
        ) from error
    try:
        state = {key: value for key, value in load_state_dict(str(weights)).items() if key.startswith("visual.")}
    except Exception as error:  # each file format has exceptions of its own
        raise UserError(
            f"{weights}: not readable as the weights of an open_clip model ({first_line(error)}); is it whole?"
        ) from error
    wanted = tower.state_dict()
    misshapen = [key for key in wanted.keys() & state.keys() if wanted[key].shape != state[key].shape]
    _check_fit(str(weights), f"image tower as in {told_by}", wanted.keys() - state.keys(), misshapen)
    unknown = sorted(state.keys() - wanted.keys())
    if unknown:
        raise UserError(f"{weights}: {len(unknown)} weights are unknown to {told_by} ({', '.join(unknown[:3])})")
    tower.load_state_dict(state)
    return ImageEncoder(name, tower, model["embed_dim"], preprocessing)


def _open_clip_folder(name: str, folder: Path) -> ImageEncoder:
    config = read_json(folder / OPEN_CLIP_CONFIG)
    weights = next((folder / file for file in OPEN_CLIP_WEIGHTS if (folder / file).is_file()), None)
    if weights is None:
        raise UserError(f"{folder}: no weights found; expected {' or '.join(OPEN_CLIP_WEIGHTS)}")
    return load_open_clip_encoder(name, config, weights, str(folder / OPEN_CLIP_CONFIG))


def _open_clip_hub(name: str, hub_id: str) -> ImageEncoder:
    from open_clip.pretrained import download_pretrained_from_hf

    try:
        config_file = Path(download_pretrained_from_hf(hub_id, filename=OPEN_CLIP_CONFIG))
        weights = Path(download_pretrained_from_hf(hub_id))
    except Exception as error:  # the hub's client has many
        raise UserError(
            f"cannot load the open_clip model {hub_id!r} from the hub: {first_line(error)}. Give --vlm_path a folder "
            f"with its {OPEN_CLIP_CONFIG} and weights{HOW_TO_DOWNLOAD.format(hub_id)}"
        ) from error
    return load_open_clip_encoder(name, read_json(config_file), weights, f"{OPEN_CLIP_CONFIG} of {hub_id}")


def _open_clip_architecture(name: str, vlm_path: str | None) -> ImageEncoder:
    from open_clip import get_model_config

    architecture = name.removeprefix(ARCHITECTURE_PREFIX)
    config = get_model_config(architecture)
    if config is None:
        raise UserError(
            f"--feature_extractor {name}: open_clip has no architecture {architecture}; list them with: "
            'python -c "import open_clip; print(open_clip.list_models())"'
        )
    if vlm_path is None or not Path(vlm_path).is_file():
        raise UserError(f"--feature_extractor {name} --vlm_path {vlm_path}: expected the path of a checkpoint file")
    return load_open_clip_encoder(name, {"model_cfg": config}, Path(vlm_path), f"open_clip's {architecture}")


# ---- one entrance ----------------------------------------------------------------------------------------------------


def load_image_encoder(feature_extractor: str, vlm_path: str | None = None) -> ImageEncoder:
    """The frozen image encoder of a feature extractor, on the CPU.

    The pair names a model as it does for load_text_tower, so that training finds the texts of the same model. The
    first rule that fits counts:

    1. feature_extractor ``open_clip:ARCH``: that architecture of open_clip, its checkpoint file is vlm_path
    2. vlm_path ``hf-hub:OWNER/NAME``: an open_clip model of the hub
    3. vlm_path a .bin, .pt or .pth file: CONCH's weight file
    4. feature_extractor ``conch``, unless vlm_path is a folder with a config.json (6): conch/pytorch_model.bin, or the
       pytorch_model.bin of the folder vlm_path
    5. vlm_path a folder with open_clip_config.json and without config.json: an open_clip model
    6. otherwise CLIP through transformers: vlm_path is a Hugging Face folder or a hub id; plip and quiltnet know theirs

    Raises UserError where it cannot be had.
    """
    folder = Path(vlm_path) if vlm_path and Path(vlm_path).is_dir() else None
    if feature_extractor.startswith(ARCHITECTURE_PREFIX):
        encoder = _open_clip_architecture(feature_extractor, vlm_path)
    elif vlm_path and vlm_path.startswith(HUB_PREFIX):
        encoder = _open_clip_hub(feature_extractor, vlm_path.removeprefix(HUB_PREFIX))
    elif vlm_path and Path(vlm_path).suffix in {".bin", ".pt", ".pth"}:
        encoder = load_conch_encoder(feature_extractor, Path(vlm_path))
    elif feature_extractor == "conch" and not (folder and (folder / "config.json").exists()):
        weights = folder / "pytorch_model.bin" if folder else Path(vlm_path or CONCH_WEIGHTS)
        encoder = load_conch_encoder(feature_extractor, weights)
    elif folder and (folder / OPEN_CLIP_CONFIG).exists() and not (folder / "config.json").exists():
        encoder = _open_clip_folder(feature_extractor, folder)
    elif vlm_path is None and feature_extractor not in PUBLISHED_VLMS:
        raise UserError(
            f"--feature_extractor {feature_extractor}: its vision-language model is not known; name it with "
            "--vlm_path (a Hugging Face CLIP or open_clip folder, a hub id, or a CONCH pytorch_model.bin)"
        )
    else:
        encoder = load_clip_encoder(feature_extractor, vlm_path or PUBLISHED_VLMS[feature_extractor])
    return encoder.requires_grad_(False).eval()


def _check_fit(source: str, what: str, missing: Iterable[str], misshapen: Iterable[Any]) -> None:
    """Raises UserError where weights are missing or of another shape than expected."""
    faults = sorted(missing), sorted(str(name) for name in misshapen)
    if any(faults):
        raise UserError(
            f"{source}: not a complete {what}: {len(faults[0])} weights are missing, {len(faults[1])} have another "
            f"shape ({', '.join((faults[0] + faults[1])[:3])}); expected a whole vision-language model, not its text "
            "side alone"
        )
