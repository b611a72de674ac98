"""Models of published size load strictly: names and shapes of all weights, without their contents.

The libraries tell the names. Where ../shared/golden/vlms/full_size_keys.txt is at hand, it is held against them.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor, nn

from models.vlms import registry
from models.vlms.places import ModelFiles
from models.vlms.tokenizers import StandardTokenizer
from tests.conftest import SHARED

LAYER = re.compile(r"\.\d+\.")
BERT_BASE = {"num_attention_heads": 12}
SO400M = {"hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16, "intermediate_size": 4304}


def shapes_of(make: Callable[[], nn.Module]) -> dict[str, Tensor]:
    with torch.device("meta"):
        return dict(make().state_dict())


def of_open_clip(name: str) -> dict[str, Tensor]:
    config = open_clip.get_model_config(name)
    kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CLIP
    return shapes_of(lambda: kind(**{key: value for key, value in config.items() if key != "custom_text"}))


def of_clip(**vision: int) -> Callable[[], nn.Module]:
    from transformers import CLIPConfig, CLIPModel

    return lambda: CLIPModel(CLIPConfig.from_dict(clip_config(**vision)))


def clip_config(**vision: int) -> dict[str, Any]:
    large = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072} if vision else {}
    return {
        "model_type": "clip", "projection_dim": 768 if vision else 512, "text_config": large, "vision_config": vision
    }  # fmt: skip


LARGE = {
    "hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 24, "intermediate_size": 4096,
    "patch_size": 14, "image_size": 336,
}  # fmt: skip


def bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig())


def of_timm(name: str, **more: Any) -> dict[str, Tensor]:
    import timm

    return shapes_of(lambda: timm.create_model(name, num_classes=0, **more))


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def linear(name: str, rows: int, columns: int, bias: bool = False) -> dict[str, Tensor]:
    bias_too = {f"{name}.bias": torch.empty(rows, device="meta")} if bias else {}
    return {f"{name}.weight": torch.empty(rows, columns, device="meta"), **bias_too}


SCALE = {"logit_scale": torch.empty((), device="meta")}


def biomedclip() -> dict[str, Tensor]:
    without = {name: value for name, value in shapes_of(bert).items() if not name.startswith("pooler.")}
    return {
        **SCALE, **prefixed("visual.trunk.", of_timm("vit_base_patch16_224")), **linear("visual.head.proj", 512, 768),
        **prefixed("text.transformer.", without), **linear("text.proj.0", 640, 768), **linear("text.proj.2", 512, 640),
    }  # fmt: skip


BIOMEDCLIP_CONFIG = {
    "model_cfg": {
        "embed_dim": 512,
        "vision_cfg": {
            "timm_model_name": "vit_base_patch16_224", "timm_pool": "", "timm_proj": "linear", "image_size": 224
        },
        "text_cfg": {
            "hf_model_name": "a/BERT", "hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler",
            "context_length": 256,
        },
    }
}  # fmt: skip


def keep() -> dict[str, Tensor]:
    vit = of_timm("vit_large_patch16_224", init_values=1e-5)
    return {
        **SCALE, **{name.replace("gamma", "weight"): value for name, value in prefixed("visual.", vit).items()},
        **linear("visual_head.0", 768, 1024, bias=True), **linear("visual_head.2", 768, 768, bias=True),
        **prefixed("text.", shapes_of(bert)),
    }  # fmt: skip


def siglip() -> nn.Module:
    from transformers import SiglipConfig, SiglipModel

    return SiglipModel(SiglipConfig.from_dict(SIGLIP_CONFIG))


SIGLIP_CONFIG = {
    "model_type": "siglip", "text_config": {**SO400M, "projection_size": 1152},
    "vision_config": {**SO400M, "image_size": 448, "patch_size": 14},
}  # fmt: skip
NO_FILES: dict[str, Any] = {}
# name: weights, configuration, its file, section of full_size_keys.txt, number of values
CASES: dict[str, tuple[Callable[[], Any], dict[str, Any], str, str, int]] = {
    "quiltnet-b16": (lambda: of_open_clip("ViT-B-16"), NO_FILES, "", "open_clip ViT-B-16", 149_620_737),
    "quiltnet": (lambda: of_open_clip("ViT-B-32"), NO_FILES, "", "open_clip ViT-B-32", 151_277_313),
    "patho-clip-l": (lambda: of_open_clip("ViT-L-14"), NO_FILES, "", "open_clip ViT-L-14", 427_616_513),
    "pathgen-clip-l": (lambda: of_open_clip("ViT-L-14-336"), NO_FILES, "", "open_clip ViT-L-14-336", 427_944_193),
    "clip-rn50": (lambda: of_open_clip("RN50"), NO_FILES, "", "open_clip RN50", 102_060_440),
    "omiclip": (
        lambda: of_open_clip("coca_ViT-L-14"), NO_FILES, "", "open_clip coca_ViT-L-14", 638_450_177
    ),
    "plip": (lambda: shapes_of(of_clip()), clip_config(), "config.json", "hf CLIP B/32", 151_277_313),
    "pathgen-clip-l-hf": (
        lambda: shapes_of(of_clip(**LARGE)), clip_config(**LARGE), "config.json", "hf CLIP L/14 336", 427_944_193,
    ),
    "biomedclip": (biomedclip, BIOMEDCLIP_CONFIG, "open_clip_config.json", "", 195_902_721),
    "keep": (keep, NO_FILES, "", "", 414_210_817),
    "medsiglip": (
        lambda: shapes_of(siglip), SIGLIP_CONFIG, "config.json", "siglip so400m/14 448", 878_300_338
    ),
}  # fmt: skip
PIXELS = {"pathgen-clip-l": 336, "pathgen-clip-l-hf": 336, "medsiglip": 448}
ROOM = {"omiclip": 74, "biomedclip": 254, "keep": 254, "medsiglip": 63}


@pytest.fixture(autouse=True)
def no_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not asked for here."""

    def any_tokenizer(*_: object) -> StandardTokenizer:
        return StandardTokenizer()

    for module in ("open_clip_bert", "keep", "siglip"):
        monkeypatch.setattr(f"models.vlms.{module}.own_tokenizer", any_tokenizer)


@pytest.mark.parametrize("name", CASES)
def test_a_model_of_published_size_loads_strictly(tmp_path: Path, name: str) -> None:
    make, config, file, section, expected = CASES[name]
    state = make()
    if config:
        (tmp_path / file).write_text(json.dumps(config))
    files = ModelFiles(str(tmp_path), tmp_path, (), None)
    files.__dict__["tensors"] = {**state, "text_model.embeddings.position_ids": torch.empty(1, 77, device="meta")}
    if "clip" not in str(config.get("model_type")):
        files.__dict__["tensors"] = state
    family = registry.family_of(files)
    text, image = family.load_text(files), family.load_image(files)
    num_read = sum(value.numel() for side in (text, image) for value in side.state_dict().values())
    assert sum(value.numel() for value in state.values()) == expected
    unread = ("text_decoder.", "logit_bias")
    assert num_read == sum(value.numel() for name, value in state.items() if not name.startswith(unread))
    assert (image.transform.input_size, text.output_dim) == (PIXELS.get(name, 224), image.output_dim)
    if section:
        check_listed(section, state)


def check_listed(section: str, state: Mapping[str, Tensor]) -> None:
    listing = SHARED / "golden" / "vlms" / "full_size_keys.txt"
    if not listing.exists():
        return
    (text,) = re.findall(rf"^## {re.escape(section)} \d+ tensors.*?$(.*?)(?=^##|\Z)", listing.read_text(), re.M | re.S)
    listed = {LAYER.sub(".N.", line.strip()) for line in text.splitlines() if line.strip()}
    first: dict[str, list[int]] = {}  # of each layer's weights
    for name, value in state.items():
        first.setdefault(LAYER.sub(".N.", name), list(value.shape))
    shown = {f"{name} {shape}" for name, shape in first.items()}
    assert {line for line in listed if "downsample" not in line} == {line for line in shown if "downsample" not in line}


def test_a_weight_too_few_or_too_many_is_told(tmp_path: Path) -> None:
    """Of every part of a full-size model, one at a time."""
    from utils.errors import UserError

    state = of_open_clip("ViT-B-16")
    for name in ("visual.proj", "text_projection", "transformer.resblocks.11.ln_2.bias", "visual.ln_pre.weight"):
        for changed in (
            {other: value for other, value in state.items() if other != name},
            {**state, name: torch.empty(3, device="meta")},
        ):
            files = ModelFiles(str(tmp_path), tmp_path, (), None)
            files.__dict__["tensors"] = changed
            load = registry.FAMILIES[4].load_image if name.startswith("visual") else registry.FAMILIES[4].load_text
            with pytest.raises(UserError) as caught:
                load(files)
            assert {fault.code for fault in caught.value.faults} <= {"vlm.incomplete", "vlm.config"}
