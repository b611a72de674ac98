"""ViLa-MIL against its official code, against a second implementation in loops, and on bags that need care."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import MultiheadAttention

from models.baselines.vila_mil import EarlyEncoding, ViLaMIL, trained_copy
from models.build import build_model
from models.losses import build_bag_loss
from models.prompts import PromptLearner, PublishedEncoding
from models.vlms import load_text_side
from tests.support.baseline_case import bag_of, read
from tests.support.random_towers import random_tower
from tests.support.text_case import TextCase, find_tower
from utils.config import Config
from utils.errors import UserError

NAMES = {
    "prompt_learner.ctx": "prompts.context_tokens",
    "learnable_image_center": "prototypes",
    "cross_attention_1": "read_patches.maps",
    "cross_attention_2": "read_slide.maps",
    "norm": "norm",
    "attention_V": "attention.content",
    "attention_U": "attention.gate",
    "attention_weights": "attention.score",
}


def golden_model(case: TextCase, is_released: bool) -> ViLaMIL:
    settings, num_classes = case.settings, case.num_classes
    tower = load_text_side("golden", str(find_tower(case.folder, settings["text_tower"])))
    case.check_tower(tower)
    if is_released:
        tower = trained_copy(tower)
    prompts = PromptLearner(
        tower, settings["prompts"][:num_classes], settings["prompts"][num_classes:], num_classes,
        settings["context_tokens"], encoding=EarlyEncoding if is_released else PublishedEncoding,
    )  # fmt: skip
    model = ViLaMIL(prompts, build_bag_loss("ce", num_classes), settings["prototypes"], settings["hidden_dim"])
    return case.load(model)


def check_prompts(case: TextCase, prompts: PromptLearner) -> None:
    """Our prompts hold the case's tokens, with the context behind the start. The case has the low prompts first."""
    weights = read(case.folder / "weights.npz")
    num_context = case.settings["context_tokens"]
    order = [*range(0, len(prompts.token_ids), 2), *range(1, len(prompts.token_ids), 2)]
    kept = torch.ones(prompts.token_ids.shape[1], dtype=torch.bool)
    kept[1 : 1 + num_context] = False
    assert torch.equal(prompts.token_ids[order][:, kept], case.inputs["token_ids"][:, : int(kept.sum())])
    embeddings = torch.cat([weights["prompt_learner.token_prefix"], weights["prompt_learner.token_suffix"]], dim=1)
    assert torch.equal(prompts.token_embeddings[order][:, kept], embeddings)


@pytest.mark.parametrize("is_released", [False, True])
def test_golden(golden_baselines: Path, is_released: bool) -> None:
    case = TextCase(golden_baselines / "ViLa_MIL", NAMES)
    prefix = "" if is_released else "published."
    model = golden_model(case, is_released)
    bags = case.two_scale_bags("bag{}.low", "bag{}.high")
    check_prompts(case, model.prompts)
    case.check(f"{prefix}text_features", torch.cat(model.prompts()))
    for i, bag in enumerate(bags):
        output = model(bag)
        case.check(f"bag{i}.{prefix}logits", output.logits)
        case.check(f"bag{i}.{prefix}probabilities", output.logits.softmax(0))
        case.check(f"bag{i}.{prefix}loss", output.loss)
        for scale in ("low", "high"):
            for name in ("prototypes", "attention", "image", "text"):
                case.check(f"bag{i}.{prefix}{scale}_{name}", output.details[f"{scale}_{name}"])
            case.check(f"bag{i}.{prefix}logits_{scale}", output.details[f"{scale}_logits"])
    case.check_gradients(model, model(bags[0]).loss, prefix)
    case.check_tower_gradients(model.prompts.tower, prefix)
    case.check_trace(model, bags, prefix=prefix, after="log_probabilities")


def attend(weights: MultiheadAttention, queries: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """One-head attention, row by row."""
    dim = queries.shape[1]
    parts = zip(weights.in_proj_weight.split(dim), weights.in_proj_bias.split(dim), strict=True)
    (wq, bq), (wk, bk), (wv, bv) = parts
    rows, all_shares = [], []
    for query in queries:
        scores = [float((wq @ query + bq) @ (wk @ x + bk)) / math.sqrt(dim) for x in seen]
        total = sum(math.exp(score) for score in scores)
        shares = [math.exp(score) / total for score in scores]
        mixed = sum(share * (wv @ x + bv) for share, x in zip(shares, seen, strict=True))
        rows.append(weights.out_proj.weight @ mixed + weights.out_proj.bias)
        all_shares.append(shares)
    return torch.stack(rows), torch.tensor(all_shares)


@torch.no_grad()
@pytest.mark.parametrize(("num_low", "num_high", "num_prototypes"), [(5, 7, 3), (1, 1, 1), (2, 9, 4)])
def test_patch_by_patch(num_low: int, num_high: int, num_prototypes: int) -> None:
    """Three classes, in loops."""
    tower = random_tower("clip", width=6)
    learner = PromptLearner(tower, [f"low {k}" for k in range(3)], [f"high {k}" for k in range(3)], 3, 4)
    torch.manual_seed(0)
    model = ViLaMIL(learner, build_bag_loss("ce", 3), num_prototypes, hidden=5).eval()
    for name, parameter in model.named_parameters():
        if "tower" not in name:
            nn.init.normal_(parameter, std=0.5)
    bag = bag_of(torch.randn(num_high, 6), 2, torch.randn(num_low, 6))
    output = model(bag)
    logits = [0.0, 0.0, 0.0]
    for scale, patches, texts in zip(("low", "high"), (bag.low_features, bag.patches), learner(), strict=True):
        read, shares = attend(model.read_patches.maps, model.prototypes, patches)
        rows = []
        for row in read + model.prototypes:
            unit = (row - row.mean()) / (row.var(unbiased=False) + 1e-5).sqrt()
            rows.append(unit * model.norm.weight + model.norm.bias)
        gates = model.attention
        scores = []
        for row in rows:
            content = (gates.content[0].weight @ row + gates.content[0].bias).tanh()
            gate = (gates.gate[0].weight @ row + gates.gate[0].bias).sigmoid()
            scores.append(float(gates.score.weight[0] @ (content * gate)))
        alpha = [math.exp(score) / sum(map(math.exp, scores)) for score in scores]
        image = sum(share * row for share, row in zip(alpha, rows, strict=True))
        text = texts + attend(model.read_slide.maps, texts, torch.cat([torch.stack(rows), patches]))[0]
        logits = [logit + float(row @ image) for logit, row in zip(logits, text, strict=True)]
        assert torch.allclose(output.details[f"{scale}_patch_attention"], shares, atol=1e-5)
        if scale == "high":
            part = [sum(alpha[r] * float(shares[r, i]) for r in range(num_prototypes)) for i in range(num_high)]
            assert output.details["attention"].tolist() == [pytest.approx(part, abs=1e-5)]
    assert output.logits.tolist() == pytest.approx(logits, rel=1e-4, abs=1e-4)
    expected = math.log(sum(map(math.exp, logits))) - logits[2]
    assert float(output.loss) == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("words", [0, 1, 3, 10, 70])
def test_the_released_code_reads_as_many_places_too_early(words: int) -> None:
    """What stands behind the place that is read has no influence."""
    context, tower = 4, random_tower("clip")
    text = " ".join(f"word{place}" for place in range(words))
    learner = PromptLearner(tower, [text], [text], 1, context, encoding=EarlyEncoding)
    length = 1 + context + min(words, 77 - 2 - context)
    place = length - context  # of 1 + context + words places before the end token's
    x = (
        learner.prompt_embeddings()[:1, : place + 1]
        + tower.text_model.embeddings.position_embedding.weight[: place + 1]
    )
    mask = torch.full((place + 1, place + 1), -torch.inf).triu(1)[None, None]
    for layer in tower.text_model.encoder.layers:
        x = layer(x, attention_mask=mask)
    expected = tower.text_projection(tower.text_model.final_layer_norm(x[0, -1]))
    assert torch.allclose(learner()[0][0], expected, atol=1e-5)


def test_the_released_variant_trains_a_tower_of_its_own() -> None:
    tower = random_tower("clip")
    config = Config(model_type="ViLa_MIL", variant="released", num_context_tokens=4)
    model = build_model(config, tower, ["a b c d e f", "g h i j k l"], ["m n o p q r", "s t u v w x"], 2)
    untouched = {name: value.clone() for name, value in tower.state_dict().items()}
    bag = bag_of(torch.randn(5, 16), 1, torch.randn(3, 16))
    model.eval()
    with torch.no_grad():
        before = model(bag).logits
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=10.0)
    model(bag).loss.backward()
    model.prompts.context_tokens.grad = model.prototypes.grad = None  # the tower alone must tell
    for module in (model.read_patches, model.read_slide, model.norm, model.attention):
        module.zero_grad()
    optimizer.step()
    with torch.no_grad():
        after = model(bag).logits
    assert not torch.allclose(before, after, atol=1e-4)
    assert all(torch.equal(value, untouched[name]) for name, value in tower.state_dict().items())
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    assert any(name.startswith("prompts.tower.") for name in model.checkpoint())


def test_the_released_code_has_no_conch() -> None:
    config = Config(model_type="ViLa_MIL", variant="released", num_context_tokens=4)
    with pytest.raises(UserError, match="CLIP's text tower alone"):
        build_model(config, random_tower("conch"), ["a", "c"], ["e", "g"], 2)
