"""MSCPT against second implementations, text by text and pair by pair, and on bags that need care."""

import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.baselines.mscpt import MSCPT, ForwardGCN
from models.baselines.mscpt_prompts import DeepPromptLearner
from models.build import build_model
from models.losses import build_bag_loss
from models.vlms import TextSide
from models.vlms.clip import ClipTextSide
from tests.support.baseline_case import bag_of
from tests.support.random_towers import WordTokenizer, random_tower
from utils.config import Config

CLASSES, LOW, HIGH = 3, 2, 4
WORDS = ["pale", "dark", "round", "solid", "nests", "cells", "glands", "septa", "stroma", "mucin", "keratin"]


def some_texts(number: int, seed: int) -> list[str]:
    """Descriptions of two to six words; those of a class share their beginnings now and then."""
    draw = random.Random(seed)
    return [" ".join(draw.choice(WORDS) for _ in range(draw.randint(2, 6))) for _ in range(number)]


def some_learner(kind: str) -> DeepPromptLearner:
    tower = random_tower(kind)
    torch.manual_seed(1)
    learner = DeepPromptLearner(
        tower, some_texts(CLASSES * LOW, 0), some_texts(CLASSES * HIGH, 1), CLASSES, num_global=3
    )
    for parameter in learner.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.5)
    return learner


def one_text(tower: TextSide, ids: list[int], put: Callable[[int], Tensor | None]) -> tuple[list[Tensor], Tensor]:
    """The states of a text's end token (CONCH: class embedding) behind each layer, and its feature, through the
    libraries' own layers; ``put(layer)`` are the vectors for places 1, 2, ... before a layer."""
    if isinstance(tower, ClipTextSide):
        model = tower.text_model
        x = model.embeddings.token_embedding(torch.tensor(ids)) + model.embeddings.position_embedding.weight[: len(ids)]
        x, place = x.unsqueeze(0), len(ids) - 1
        mask = torch.full((len(ids), len(ids)), -torch.inf).triu(1)[None, None]
        layers: list[Any] = [partial(layer, attention_mask=mask) for layer in model.encoder.layers]
    else:
        padded = torch.tensor([ids + [0] * (tower.context_length - len(ids))])
        x, mask = tower.transformer._embeds(padded)
        place = x.shape[1] - 1
        layers = [partial(block, attn_mask=mask) for block in tower.transformer.transformer.resblocks]
    states = []
    for number, layer in enumerate(layers):
        vectors = put(number)
        if vectors is not None:
            x = torch.cat([x[:, :1], vectors.unsqueeze(0), x[:, 1 + len(vectors) :]], dim=1)
        x = layer(x)
        states.append(x[0, place])
    if isinstance(tower, ClipTextSide):
        return states, tower.text_projection(tower.text_model.final_layer_norm(states[-1]))
    return states, tower.transformer.ln_final(states[-1]) @ tower.transformer.text_projection


@pytest.mark.parametrize("kind", ["clip", "conch"])
def test_texts_one_by_one(kind: str) -> None:
    learner = some_learner(kind)
    tower, encode = learner.tower, WordTokenizer().encode
    low = [one_text(tower, [1, *ids, 2], lambda layer: None) for ids in encode(some_texts(CLASSES * LOW, 0))]
    unit = partial(F.normalize, dim=0)
    assert torch.allclose(learner.low_features, torch.stack([unit(feature) for _, feature in low]), atol=1e-5)
    for row, (ids, found) in enumerate(zip(encode(some_texts(CLASSES * HIGH, 1)), learner(), strict=True)):
        own = low[row // HIGH * LOW : (row // HIGH + 1) * LOW]

        def put(layer: int, own: list[tuple[list[Tensor], Tensor]] = own) -> Tensor:
            if layer == 0:
                return learner.first
            states = [unit(states[layer - 1]) for states, _ in own]
            return torch.stack([*learner.deep[layer - 1], *(state + learner.project(state) for state in states)])

        _, expected = one_text(tower, [1, *[7] * (3 + LOW), *ids, 2], put)
        assert torch.allclose(found, unit(expected), atol=1e-5), row


@pytest.mark.parametrize(("num_nodes", "num_linked"), [(9, 9), (9, 4), (3, 5), (1, 1)])
def test_graph_against_gcn_conv(num_nodes: int, num_linked: int) -> None:
    from torch_geometric.nn import GCNConv

    torch.manual_seed(0)
    graph, nodes = ForwardGCN(5), torch.randn(num_nodes, 5)
    edges = [(i, j) for j in range(min(num_linked, num_nodes)) for i in range(j)]
    edge_index = torch.tensor(edges, dtype=torch.long).reshape(-1, 2).t()
    x = nodes
    for layer in (graph.first, graph.second):
        torch.nn.init.normal_(layer.bias)
        conv = GCNConv(5, 5)
        conv.load_state_dict({"lin.weight": layer.weight, "bias": layer.bias})
        x = conv(x, edge_index)
        x = x.relu() if layer is graph.first else x
    assert torch.allclose(graph(nodes, num_linked), x, atol=1e-6)


def top(scores: list[float], k: int) -> float:
    best = sorted(scores, reverse=True)[:k]
    return sum(best) / len(best)


@torch.no_grad()
@pytest.mark.parametrize("is_released", [False, True])
def test_scores_pair_by_pair(is_released: bool) -> None:
    learner = some_learner("clip")
    model = MSCPT(
        learner, build_bag_loss("ce", CLASSES), 0.0, is_released, top_low=3, top_high=7, num_selected=4
    ).eval()
    torch.manual_seed(3)
    bag = bag_of(torch.randn(11, 16), 1, torch.randn(6, 16))
    output = model(bag)
    texts = {"low": learner.low_features.detach(), "high": learner().detach()}
    numbers = {"low": LOW, "high": HIGH}
    means = {
        scale: [texts[scale][k * number : (k + 1) * number].mean(0) for k in range(CLASSES)]
        for scale, number in numbers.items()
    }
    low_patches = [patch / patch.norm() for patch in bag.low_features]
    chosen = []
    for k in range(CLASSES):
        cosines = [float(F.cosine_similarity(patch, means["low"][k], dim=0)) for patch in low_patches]
        chosen += sorted(range(6), key=lambda i: -cosines[i])[:4]
    assert output.details["selected"].tolist() == chosen
    nodes = {
        "low": model.low_graph(torch.stack([low_patches[i] for i in chosen]), len(chosen)),
        "high": model.high_graph(bag.patches / bag.patches.norm(dim=1, keepdim=True), HIGH),
    }
    scale = float(learner.tower.logit_scale.exp())
    logits = {}
    for own, other, k_top in (("low", "high", 3), ("high", "low", 7)):
        logits[own] = []
        for k in range(CLASSES):
            members = [i for i in range(len(texts[own])) if (i % CLASSES if is_released else i // numbers[own]) == k]
            pairs = [float(node @ texts[own][i]) for node in nodes[own] for i in members]
            cross = [float(node @ means[other][k]) for node in nodes[own]]
            logits[own].append(scale * (top(pairs, k_top) + top(cross, k_top)))
        assert output.details[f"logits_{own}"].tolist() == pytest.approx(logits[own], abs=1e-4)
    mean = [(low + high) / 2 for low, high in zip(logits["low"], logits["high"], strict=True)]
    assert output.logits.tolist() == pytest.approx(mean, abs=1e-4)
    losses = [-math.log(math.exp(row[1]) / sum(map(math.exp, row))) for row in (mean, logits["low"], logits["high"])]
    assert float(output.loss) == pytest.approx(sum(losses), abs=1e-3)
    assert [float(output.losses[name]) for name in ("bag", "low", "high")] == pytest.approx(losses, abs=1e-3)


# ---- order and learned vectors ---------------------------------------------------------------------------------------


def test_the_order_of_the_low_patches_does_not_matter() -> None:
    model = MSCPT(some_learner("clip"), build_bag_loss("ce", CLASSES), num_selected=4).eval()
    torch.manual_seed(4)
    low, high = torch.randn(20, 16), torch.randn(9, 16)
    shuffled = bag_of(high, 0, low[torch.randperm(20)])
    assert torch.allclose(model(shuffled).logits, model(bag_of(high, 0, low)).logits, atol=1e-5)


def test_texts_are_encoded_anew_when_a_learned_vector_changes() -> None:
    learner = some_learner("clip")
    for parameter in [parameter for parameter in learner.parameters() if parameter.requires_grad]:
        with torch.no_grad():
            before = learner()
            assert learner() is before
            parameter.add_(torch.randn_like(parameter))
            assert not torch.allclose(learner(), before, atol=1e-4)
        assert torch.allclose(learner(), learner().detach())


def test_the_tower_keeps_no_trace_of_the_vectors() -> None:
    learner = some_learner("clip")
    ids, before = learner.token_ids, learner.tower.encode_prompts(learner.token_embeddings, learner.token_ids)
    learner()
    assert torch.equal(learner.tower.encode_prompts(learner.token_embeddings, ids), before)


def test_the_released_variant_mixes_classes() -> None:
    torch.manual_seed(5)
    bag, tower = bag_of(torch.randn(9, 16), 0, torch.randn(6, 16)), random_tower("clip")
    texts = some_texts(CLASSES * LOW, 0), some_texts(CLASSES * HIGH, 1)
    models = {}
    for variant in ("paper", "released"):
        torch.manual_seed(0)
        models[variant] = build_model(Config(model_type="MSCPT", variant=variant), tower, *texts, CLASSES).eval()
    assert [model.mixes_classes for model in models.values()] == [False, True]
    assert not torch.allclose(models["paper"](bag).logits, models["released"](bag).logits)
