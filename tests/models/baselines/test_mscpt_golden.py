"""MSCPT against its official code."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.baselines.mscpt import MSCPT
from models.baselines.mscpt_prompts import DeepPromptLearner
from models.losses import build_bag_loss
from models.vlms.clip import ClipTextSide
from tests.support.baseline_case import read
from tests.support.text_case import StoredTokens, TextCase

NAMES = {
    "prompt_learner.p_input": "texts.first",
    "prompt_learner.p_uni": "texts.deep",
    "prompt_learner.p_ins_projector": "texts.project",
    **{
        f"gcn_prompt_learner_{theirs}.{conv}{lin}": f"{ours}_graph.{layer}"
        for theirs, ours in (("big", "low"), ("small", "high"))
        for conv, layer in (("conv1", "first"), ("conv2", "second"))
        for lin in ("", ".lin")
    },
}


class GoldenMSCPT(MSCPT):
    """The case's low patches are those selected."""

    def select(self, low_patches: Tensor) -> Tensor:
        return torch.arange(len(low_patches))


def golden_texts(case: TextCase, scale: str) -> list[str]:
    return [text for texts in case.settings["texts"].values() for text in texts[scale]]


def golden_tower(case: TextCase) -> ClipTextSide:
    """The case's own CLIP, text side, with its stored token ids."""
    from transformers import CLIPConfig, CLIPModel

    settings = case.settings
    end = settings["vocab_size"] - 1
    tokens = {}
    placeholders = settings["n_tpro"] + settings["n_high"]
    for scale, name, before in (("low", "low_text_ids", 0), ("high", "high_prompt_ids", placeholders)):
        for text, ids in zip(golden_texts(case, scale), case.inputs[name].tolist(), strict=True):
            tokens[text] = ids[1 + before : ids.index(end)]
    weights = {
        name.removeprefix("model."): value
        for name, value in read(case.folder / "weights.npz").items()
        if name.startswith("model.") and "vision" not in name and "visual" not in name
    }
    config = CLIPConfig(
        text_config={
            "hidden_size": settings["text_width"], "num_hidden_layers": settings["text_layers"],
            "num_attention_heads": settings["text_heads"], "vocab_size": settings["vocab_size"],
            "intermediate_size": len(weights["text_model.encoder.layers.0.mlp.fc1.bias"]),
            "max_position_embeddings": len(weights["text_model.embeddings.position_embedding.weight"]),
            "eos_token_id": end, "bos_token_id": 0, "pad_token_id": end,
        },
        vision_config={"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8},
        projection_dim=settings["projection_dim"],
    )  # fmt: skip
    clip = CLIPModel(config)
    missing, unexpected = clip.load_state_dict(weights, strict=False)
    assert not unexpected and all(name.startswith(("vision", "visual")) for name in missing)
    start = int(case.inputs["low_text_ids"][0, 0])
    return ClipTextSide(clip, StoredTokens(tokens, start, end)).requires_grad_(False).eval()


def golden_model(case: TextCase, is_released: bool) -> MSCPT:
    settings = case.settings
    texts = DeepPromptLearner(
        golden_tower(case), golden_texts(case, "low"), golden_texts(case, "high"), case.num_classes, settings["n_tpro"]
    )
    loss = build_bag_loss("ce", case.num_classes)
    model = GoldenMSCPT(
        texts, loss, mixes_classes=is_released, top_low=settings["topk_low"], top_high=settings["topk_high"]
    )
    return case.load(model)


@pytest.mark.parametrize("is_released", [False, True])
def test_golden(golden_baselines: Path, is_released: bool) -> None:
    case = TextCase(golden_baselines / "MSCPT", NAMES, unused=("model.", "vision_prompt_learner."))
    prefix = "features_only." if is_released else "features_only.repaired."
    model = golden_model(case, is_released)
    texts = model.texts
    case.check("low_text_features", texts.low_features)
    # (K, layers, O, W); what lies behind the last layer is not used
    case.outputs["low_states"] = case.outputs["low_text_layer_features"][:, :-1]
    case.check("low_states", texts.low_states.unflatten(1, (case.num_classes, -1)).transpose(0, 1))
    case.check("high_text_features", texts())
    bags = case.two_scale_bags("features_only{}.low", "features_only{}.high")
    for i, bag in enumerate(bags):
        output = model(bag)
        case.check(f"bag{i}.{prefix}logits", output.logits)
        case.check(f"bag{i}.{prefix}loss", output.loss)
        case.check(f"bag{i}.{prefix}loss_terms", torch.stack([output.losses[name] for name in ("bag", "low", "high")]))
        for name in ("logits_low", "logits_high", "low_nodes"):
            case.check(f"bag{i}.{prefix}{name}", output.details[name])
    case.check_gradients(model, model(bags[0]).loss, prefix)
    case.check_trace(
        model, bags, "trace.total_mean_low_high", prefix=prefix,
        columns=lambda output: [output.loss, *(output.losses[name] for name in ("bag", "low", "high"))],
    )  # fmt: skip
