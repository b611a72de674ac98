"""CONCH's image tower against what CONCH's own code gives, and files that hold no such tower."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from conch.image_tower import ConchImageTower, load_image_tower
from tests.support.conch_weights import SMALL, SMALL_WIDTH, golden_visual, save_small, small_visual
from tests.support.damage import change_json
from utils.tensors import read_state


def load(weights: Path) -> ConchImageTower:
    return load_image_tower(weights, read_state(weights))


@pytest.mark.slow
def test_conch_at_its_real_size(golden: Path, tmp_path: Path) -> None:
    """Key names, shapes and results of CONCH's own code, weights filled from a seed."""
    weights = tmp_path / "pytorch_model.bin"
    torch.save({**golden_visual(golden), "logit_scale": torch.tensor(4.0)}, weights)
    images = torch.rand(2, 3, 448, 448, generator=torch.Generator().manual_seed(2))
    expected = np.load(golden / "conch_full_size.npz")
    tower = load(weights).eval()
    unprojected: list[torch.Tensor] = []
    tower.ln_contrast.register_forward_hook(lambda *given: unprojected.append(given[-1]))
    with torch.no_grad():
        np.testing.assert_allclose(tower(images), expected["image_embedding"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(unprojected[0], expected["image_unprojected"], rtol=0, atol=1e-4)
    assert (tower.image_size, tower.output_dim) == (448, 512)


def test_the_pooler_against_plain_attention(tmp_path: Path) -> None:
    """Four heads, so that their number counts, written out by hand."""
    tower = load(save_small(tmp_path)).eval()
    state = small_visual()

    def part(name: str) -> torch.Tensor:
        return state[f"visual.{name}"].double()

    def layer_norm(x: torch.Tensor, name: str) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * part(f"{name}.weight") + part(f"{name}.bias")

    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        tokens = tower.trunk.forward_features(images).double()
        projected = tower(images)
    assert tokens.shape == (3, 17, 16)  # the class token takes part
    pool = "attn_pool_contrast"
    query, keys = layer_norm(part(f"{pool}.query"), f"{pool}.ln_q"), layer_norm(tokens, f"{pool}.ln_k")
    biases = part(f"{pool}.attn.in_proj_bias").split(SMALL_WIDTH)
    q, k, v = (
        (x @ part(f"{pool}.attn.{name}_proj_weight").T + bias).unflatten(-1, (4, 2))
        for x, name, bias in zip((query, keys, keys), "qkv", biases, strict=True)
    )
    attention = (torch.einsum("qhd,nkhd->nhqk", q, k) / 2**0.5).softmax(-1)
    mixed = torch.einsum("nhqk,nkhd->nqhd", attention, v).flatten(2)[:, 0]
    pooled = mixed @ part(f"{pool}.attn.out_proj.weight").T + part(f"{pool}.attn.out_proj.bias")
    expected = layer_norm(pooled, "ln_contrast") @ part("proj_contrast")
    np.testing.assert_allclose(projected, expected / expected.norm(dim=1, keepdim=True), rtol=0, atol=1e-5)


def test_half_precision_weights_become_float32(tmp_path: Path) -> None:
    half = {name: value.half() for name, value in small_visual().items()}
    weights = save_small(tmp_path, **half)
    tower = load(weights)
    assert {value.dtype for value in tower.state_dict().values()} == {torch.float32}


def text_only(weights: Path) -> None:
    torch.save({"text.cls_emb": torch.ones(2), "logit_scale": torch.tensor(4.0)}, weights)


def test_a_file_without_the_image_tower(tmp_path: Path) -> None:
    weights = save_small(tmp_path)
    text_only(weights)
    with pytest.raises(ValueError) as caught:
        load(weights)
    message = str(caught.value)
    assert message.startswith(f"{weights}: no weights of visual.* found")
    assert "a file without the image tower is enough for training, but not for this" in message


TENSORS = {
    "missing": ({"visual.trunk.blocks.1.attn.qkv.bias": None}, "1 are missing (trunk.blocks.1.attn.qkv.bias)"),
    "unknown": ({"visual.trunk.blocks.2.norm1.bias": torch.ones(16)}, "1 are unknown (trunk.blocks.2.norm1.bias)"),
    "shape": ({"visual.attn_pool_contrast.query": torch.ones(2, 8)}, "1 have another shape (attn_pool_contrast.query)"),
    "captions_alone": ({"visual.ln_caption.bias": torch.ones(3)}, ""),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_do_not_fit(tmp_path: Path, case: str) -> None:
    changes, found = TENSORS[case]
    weights = save_small(tmp_path, **changes)
    if not found:
        assert isinstance(load(weights), ConchImageTower)
        return
    with pytest.raises(ValueError) as caught:
        load(weights)
    assert f"{weights}: weights of visual.* do not fit: {found}; expected" in str(caught.value)


def test_sizes_come_from_the_file_beside_the_weights(tmp_path: Path) -> None:
    weights = save_small(tmp_path)
    config = weights.with_name("open_clip_config.json")
    change_json(config, lambda said: {"model_cfg": {**said["model_cfg"], "vision_cfg": {**SMALL, "layers": 3}}})
    with pytest.raises(ValueError, match="12 are missing"):
        load(weights)
    change_json(config, lambda said: {"model_cfg": {"embed_dim": SMALL_WIDTH}})  # as for a text tower alone
    with pytest.raises(ValueError, match="have another shape"):
        load(weights)
    config.unlink()
    with pytest.raises(ValueError, match="have another shape"):
        load(weights)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", json.dumps({"model_cfg": {"embed_dim": 8, "vision_cfg": {**SMALL, "heads": 5}}})]
)
def test_sizes_that_are_none(tmp_path: Path, text: str) -> None:
    weights = save_small(tmp_path)
    weights.with_name("open_clip_config.json").write_text(text)
    with pytest.raises(ValueError, match=r"open_clip_config\.json: not the sizes of a CONCH .* expected model_cfg"):
        load(weights)
