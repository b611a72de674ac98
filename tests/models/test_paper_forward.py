"""HiVE-MIL against a plain forward pass written from the paper's equations, for the options of its tables."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer

from models.build import build_model
from models.tiny_clip import save_tiny_clip
from models.vlms import load_text_side
from tests.support.paper_forward import Setting, paper_forward
from tests.support.random_slide import random_bag
from utils.config import Config

LOW = [f"low pattern {number} of nests" for number in range(6)]
HIGH = [f"high pattern {number} of cells" for number in range(12)]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"context_per_scale": False},
    {"context_per_scale": False, "class_specific_token": True},
    {"class_specific_token": True},
    *({"instances": scale, "tgdf": tgdf} for scale in ("low", "high") for tgdf in ("full", "none")),
    {"instances": "high", "intra_aggregator": "attention"},
    *({"hier_direction": way} for way in ("none", "up", "down")),
    *({"hier_aggregator": "sage", "hier_direction": way} for way in ("both", "up", "down")),
    *({"hier_aggregator": name} for name in ("maa", "saa", "attention")),
    *(
        {"intra_aggregator": intra, "hier_aggregator": hier}
        for intra in ("graph", "mlp", "attention")
        for hier in ("msa", "mlp", "attention")
        if (intra, hier) not in (("graph", "msa"), ("graph", "attention"))
    ),
    {"intra_aggregator": "mlp", "hier_direction": "none", "htcl": "none"},
    {"hier_aggregator": "mlp", "hier_direction": "up"},
    {"tgdf": "none", "hier_direction": "none", "htcl": "none"},
    *({"filter_alpha": alpha} for alpha in (-1.0, 0.0, 1.0)),
    {"scales": "low", "hier_aggregator": "sage"},
]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    save_tiny_clip(folder, width=16, seed=2)
    return folder


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_logits_loss_and_gradients(clip: Path, options: dict[str, Any]) -> None:
    config = Config(num_low_mag_texts=2, num_high_mag_subtexts=2, num_context_tokens=4, top_k_high=5, **options)
    tower, tokenizer = load_text_side("tiny", str(clip)), SimpleTokenizer()
    torch.manual_seed(3)
    model = build_model(config, tower, LOW, HIGH, 3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    for seed in range(2):
        bag = random_bag(seed, 12, 4, 16, missing=0.3, label=seed)
        bag = replace(bag, low_features=bag.low_features.float(), high_features=bag.high_features.float())
        trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
        output = model(bag)
        logits, loss = paper_forward(model, Setting(config, tokenizer, LOW, HIGH, 3), bag)
        torch.testing.assert_close(output.logits, logits, rtol=0, atol=1e-5)
        torch.testing.assert_close(output.loss, loss, rtol=0, atol=1e-5)
        ours, theirs = (
            torch.autograd.grad(value, list(trained.values()), allow_unused=True, materialize_grads=True)
            for value in (output.loss, loss)
        )
        for name, found, expected in zip(trained, ours, theirs, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5, msg=f"the gradient of {name}")
