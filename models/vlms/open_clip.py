"""Models of the open_clip library: the image side of any of its architectures. Their text sides are not read."""

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from torch import Tensor, nn

import utils.torchvision_compat  # noqa: F401  (before timm and open_clip)
from models.vlms.loading import HOW_TO_DOWNLOAD, check_complete, first_line
from models.vlms.preprocessing import CLIP_MEAN, CLIP_STD, Preprocessing
from models.vlms.sides import Family, ImageSide, Source
from utils.errors import Fault, UserError
from utils.files import read_json
from utils.tensors import misfit, read_state

ARCHITECTURE_PREFIX = "open_clip:"
HUB_PREFIX = "hf-hub:"
CONFIG_FILE = "open_clip_config.json"
WEIGHT_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
LIST_OF_ARCHITECTURES = 'python -c "import open_clip; print(open_clip.list_models())"'


class OpenClipImageTower(nn.Module):
    """The vision side of an open_clip model: what its encode_image gives, not normalised."""

    def __init__(self, visual: nn.Module):
        super().__init__()
        self.visual = visual

    def forward(self, images: Tensor) -> Tensor:
        given = self.visual(images)
        features: Tensor = given[0] if isinstance(given, tuple) else given  # CoCa's tower gives tokens too
        return features


def build_image_side(config: Mapping[str, Any], weights: Path, told_by: str) -> ImageSide:
    """The image side of an open_clip model; its text side is not built. Features are not normalised.

    config: ``model_cfg`` and, where there is one, ``preprocess_cfg``, as in open_clip_config.json. told_by: where it
    is from. Raises UserError where it describes no model, and where weights are missing or do not fit it.
    """
    from open_clip.model import _build_vision_tower

    try:
        model = config["model_cfg"]
        vision = {**model["vision_cfg"], "timm_model_pretrained": False}
        tower = OpenClipImageTower(_build_vision_tower(model["embed_dim"], vision, model.get("quick_gelu", False)))
        transform = _preprocessing(tower.visual.image_size, config.get("preprocess_cfg") or {})
    except Exception as error:  # what open_clip and timm make of a wrong description
        raise UserError(
            Fault(
                "vlm.config",
                told_by,
                f"no image tower that open_clip builds ({type(error).__name__}: {first_line(error)})",
                expected=f"the {CONFIG_FILE} of an open_clip model",
            )
        ) from error
    try:
        state = {key: value for key, value in read_state(weights).items() if key.startswith("visual.")}
    except UserError as error:
        problem = "; ".join(fault.found for fault in error.faults)
        found = f"not readable as the weights of an open_clip model ({problem})"
        raise UserError(Fault("vlm.unreadable", str(weights), found, mend="fetch the whole file again")) from error
    wanted = tower.state_dict()
    misshapen = [key for key in wanted.keys() & state.keys() if misfit(state[key], wanted[key])]
    check_complete(
        f"{weights} with {told_by}", "image", wanted.keys() - state.keys(), misshapen, state.keys() - wanted.keys()
    )
    tower.load_state_dict(state)
    return ImageSide(tower, model["embed_dim"], transform)


def _preprocessing(image_size: Any, said: Mapping[str, Any]) -> Preprocessing:
    """What ``preprocess_cfg`` says, else CLIP's standard, at the tower's own size (an edge, or height and width).

    Raises ValueError where that is no square.
    """
    size, *others = {image_size} if isinstance(image_size, int) else set(image_size)
    if others:
        raise ValueError(f"images of {image_size} pixels are not square")
    mean, std = said.get("mean") or CLIP_MEAN, said.get("std") or CLIP_STD
    return Preprocessing(size, size, mean, std, said.get("interpolation") or "bicubic")


# ---- where a model is ------------------------------------------------------------------------------------------------


def _from_folder(folder: Path) -> ImageSide:
    config = read_json(folder / CONFIG_FILE)
    weights = next((folder / file for file in WEIGHT_FILES if (folder / file).is_file()), None)
    if weights is None:
        raise UserError(Fault("vlm.missing", str(folder), "no weights found", expected=" or ".join(WEIGHT_FILES)))
    return build_image_side(config, weights, str(folder / CONFIG_FILE))


def _from_hub(hub_id: str) -> ImageSide:
    from open_clip.pretrained import download_pretrained_from_hf

    try:
        config_file = Path(download_pretrained_from_hf(hub_id, filename=CONFIG_FILE))
        weights = Path(download_pretrained_from_hf(hub_id))
    except Exception as error:  # the hub's client has many
        raise UserError(
            Fault(
                "vlm.not_downloaded",
                f"{HUB_PREFIX}{hub_id}",
                f"the open_clip model cannot be loaded from the hub: {first_line(error)}",
                mend=f"give --vlm_path a folder with its {CONFIG_FILE} and weights, "
                f"{HOW_TO_DOWNLOAD.format(quote(hub_id))}",
            )
        ) from error
    return build_image_side(read_json(config_file), weights, f"{CONFIG_FILE} of {hub_id}")


def _from_architecture(source: Source) -> ImageSide:
    from open_clip import get_model_config

    architecture = source.feature_extractor.removeprefix(ARCHITECTURE_PREFIX)
    config = get_model_config(architecture)
    if config is None:
        raise UserError(
            Fault(
                "vlm.unknown_architecture",
                f"--feature_extractor {source.feature_extractor}",
                f"open_clip has no architecture {architecture}",
                mend=f"list them with: {LIST_OF_ARCHITECTURES}",
            )
        )
    if source.vlm_path is None or not Path(source.vlm_path).is_file():
        raise UserError(
            Fault("vlm.missing", str(source), "no checkpoint file", expected="--vlm_path with the path of one")
        )
    return build_image_side({"model_cfg": config}, Path(source.vlm_path), f"open_clip's {architecture}")


def _load_image(source: Source) -> ImageSide:
    """``open_clip:ARCH`` is an architecture with a checkpoint file, ``hf-hub:OWNER/NAME`` a model of the hub."""
    if source.feature_extractor.startswith(ARCHITECTURE_PREFIX):
        return _from_architecture(source)
    if source.vlm_path and source.vlm_path.startswith(HUB_PREFIX):
        return _from_hub(source.vlm_path.removeprefix(HUB_PREFIX))
    assert source.folder is not None, "as recognised"
    return _from_folder(source.folder)


FAMILY = Family(
    name="open_clip",
    reads=f"an open_clip folder, or {HUB_PREFIX}OWNER/NAME",
    recognises=lambda source: source.holds(CONFIG_FILE) and not source.holds("config.json"),
    load_text=None,
    load_image=_load_image,
    prefixes=(ARCHITECTURE_PREFIX, HUB_PREFIX),
)
