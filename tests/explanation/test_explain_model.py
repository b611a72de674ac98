"""Explanations of untrained models on random slides: both variants and the ablations, attention the slow way."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from explanation.explain_model import explain
from models.build import build_model
from models.hive_mil import HiveMIL
from models.tiny_clip import save_tiny_clip
from models.vlms import TextSide, load_text_side
from tests.support.random_slide import random_bag
from training.metrics import hits_at_2
from utils.config import Config
from utils.interface import Bag

K, O, S = 3, 2, 2  # noqa: E741


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> TextSide:
    folder = tmp_path_factory.mktemp("clip")
    save_tiny_clip(folder, width=16, seed=2)
    return load_text_side("tiny", str(folder))


def model_of(tower: TextSide, **options: str | int) -> HiveMIL:
    config = Config(num_low_mag_texts=O, num_high_mag_subtexts=S, num_context_tokens=4, top_k_high=5, **options)  # type: ignore[arg-type]
    torch.manual_seed(0)
    texts = [f"low text {n} of tissue" for n in range(K * O)], [f"high text {n} of cells" for n in range(K * O * S)]
    model = build_model(config, tower, *texts, K)
    assert isinstance(model, HiveMIL)
    return model.eval()


def bag_of(seed: int, num_parents: int = 30) -> Bag:
    bag = random_bag(seed, num_parents, 5, 16)
    return replace(bag, low_features=bag.low_features.float(), high_features=bag.high_features.float())


@pytest.mark.parametrize(
    "options",
    [
        {}, {"variant": "released"}, {"scales": "low"}, {"scales": "high"}, {"tgdf": "none"},
        {"graph_backend": "pyg"}, {"hier_aggregator": "sage"},
        {"hier_aggregator": "saa"}, {"hier_direction": "down"}, {"hier_direction": "none"},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("seed", range(2))
def test_what_patches_and_texts_add_is_the_logits(tower: TextSide, options: dict[str, str], seed: int) -> None:
    model, bag = model_of(tower, **options), bag_of(seed)
    with torch.no_grad():
        expected, graph, (low_text, high_text) = model(bag), model.graph(bag), model.prompts()
    found = explain(model, bag)
    np.testing.assert_array_equal(found.logits, expected.logits.numpy())
    patches = found.low.patch_logits.sum(0) + found.high.patch_logits.sum((0, 1))
    np.testing.assert_allclose(patches, expected.logits, atol=1e-5)
    texts = found.low.text_logits.reshape(K, -1).sum(1) + found.high.text_logits.reshape(K, -1).sum(1)
    np.testing.assert_allclose(texts, expected.logits, atol=1e-5)
    for name, scale in (("low", found.high), ("high", found.low)):
        assert (np.abs(scale.patch_logits).sum() == 0) == (options.get("scales") == name)
    hits, patches = hits_at_2(expected.embeddings, bag.child_mask)
    assert found.hit_ratio == hits / patches

    mask = bag.child_mask.numpy()
    low_match = F.cosine_similarity(bag.low_features.unsqueeze(1), low_text.unsqueeze(0), dim=-1)
    high_match = F.cosine_similarity(bag.high_features.unsqueeze(2), high_text, dim=-1)
    np.testing.assert_allclose(found.low.match, low_match, atol=1e-5)
    np.testing.assert_allclose(found.high.match[mask], high_match[mask], atol=1e-5)
    assert np.isnan(found.high.match[~mask]).all()
    np.testing.assert_array_equal(found.low.kept, graph.keep_low.numpy())
    for row in range(len(mask)):
        place = (graph.retained == row).nonzero().flatten()
        for child in range(mask.shape[1]):
            is_node = mask[row, child] and len(place)
            kept = graph.keep_high[place[0], child].numpy() if is_node else np.zeros(K * O * S)
            np.testing.assert_array_equal(found.high.kept[row, child], kept)
            similarity = np.full(K * O * S, np.nan)
            if is_node:
                nodes = expected.embeddings
                similarity = F.cosine_similarity(nodes.high_image[place[0], child], nodes.high_text).numpy()
            np.testing.assert_allclose(found.high.similarity[row, child], similarity, atol=1e-5)
    np.testing.assert_allclose(
        found.low.similarity,
        F.cosine_similarity(expected.embeddings.low_image.unsqueeze(1), expected.embeddings.low_text, dim=-1),
        atol=1e-5,
    )


def first_layer_parts(model: HiveMIL, bag: Bag) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    with torch.no_grad():
        graph = model.graph(bag)
    return bag.low_features[graph.retained], graph.high_image, graph.child_mask, graph.retained


def by_head(query: Tensor, key: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(query.chunk(2, -1), key.chunk(2, -1), strict=True))


@pytest.mark.parametrize("graph_backend", ["blocked", "pyg"])
@torch.no_grad()
def test_published_attention_of_the_first_layer_one_parent_at_a_time(tower: TextSide, graph_backend: str) -> None:
    model, bag = model_of(tower, graph_backend=graph_backend), bag_of(3)
    parents, children, mask, retained = first_layer_parts(model, bag)
    messages = model.network.layers[0].hierarchy
    up, scales = messages["image_up"], messages.scales
    found = explain(model, bag).attention
    assert found.shape == (2, *bag.child_mask.shape)
    outside = np.setdiff1d(np.arange(len(bag.low_features)), retained.numpy())
    assert len(outside) and np.isnan(found[:, outside]).all()
    for row, parent in enumerate(retained.tolist()):
        slots = mask[row].nonzero().flatten()
        query = up.query(parents[row] + scales[0])
        key = up.key(children[row, slots] + scales[1])
        heads = [(k @ q / q.numel() ** 0.5).softmax(0) for q, k in by_head(query, key)]
        np.testing.assert_allclose(found[0, parent, slots.numpy()], torch.stack(heads).mean(0), atol=1e-5)
        assert np.isnan(found[:, parent, (~mask[row]).numpy()]).all()
        if len(slots):
            np.testing.assert_allclose(np.nansum(found[:, parent], -1), 1, atol=1e-5)


@pytest.mark.parametrize("graph_backend", ["blocked", "pyg"])
@torch.no_grad()
def test_published_attention_of_the_texts(tower: TextSide, graph_backend: str) -> None:
    model, bag = model_of(tower, graph_backend=graph_backend), bag_of(4)
    messages = model.network.layers[0].hierarchy
    low, high = model.prompts()
    up, scales = messages["text_up"], messages.scales
    found = explain(model, bag).text_attention
    for text in range(K * O):
        query, key = up.query(low[text] + scales[0]), up.key(high[text * S : (text + 1) * S] + scales[1])
        heads = [(k @ q / q.numel() ** 0.5).softmax(0) for q, k in by_head(query, key)]
        np.testing.assert_allclose(found[0, text], torch.stack(heads).mean(0), atol=1e-5)


@torch.no_grad()
def test_released_attention_is_that_of_pytorch(tower: TextSide) -> None:
    """The released graph in both layers: what the module itself was given, and its own weights."""
    model, bag = model_of(tower, variant="released"), bag_of(5, num_parents=90)
    retained = model.graph(bag).retained
    expected: dict[str, list[Tensor]] = {"image_up": [], "text_up": []}

    def look(module: torch.nn.Module, inputs: tuple[str, Tensor, Tensor], _: Tensor) -> None:
        relation, nodes, others = inputs
        if relation in expected:
            query = module.query[relation](nodes + module.scales.weight[0])
            key = module.key[relation](others + module.scales.weight[1])
            _, weights = module.attention(query, key, key, need_weights=True)
            expected[relation].append(weights)

    handles = [layer.attention.register_forward_hook(look) for layer in model.network.layers]
    model(bag)
    for handle in handles:
        handle.remove()
    found = explain(model, bag)
    num_children = bag.child_mask.shape[1]
    for layer in range(2):
        weights = expected["image_up"][layer]
        for row, parent in enumerate(retained.tolist()):
            own = weights[parent, row * num_children : (row + 1) * num_children].numpy()
            own = np.where(bag.child_mask[parent], own, np.nan)
            np.testing.assert_allclose(found.attention[layer, parent], own, rtol=1e-3, atol=1e-6)
        for text in range(K * O):
            own = expected["text_up"][layer][text, text * S : (text + 1) * S]
            np.testing.assert_allclose(found.text_attention[layer, text], own, rtol=1e-3, atol=1e-6)


@torch.no_grad()
def test_graphsage_takes_children_evenly(tower: TextSide) -> None:
    bag = bag_of(6)
    found = explain(model_of(tower, hier_aggregator="sage"), bag).attention
    for weights in found.reshape(-1, found.shape[-1]):
        known = weights[~np.isnan(weights)]
        np.testing.assert_allclose(known, 1 / max(1, len(known)), atol=1e-6)


def test_without_messages_upwards_there_is_no_attention(tower: TextSide) -> None:
    bag = bag_of(6)
    found = explain(model_of(tower, hier_direction="down"), bag)
    assert found.attention.shape == (0, *bag.child_mask.shape) and len(found.text_attention) == 0


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_the_model_and_the_slide_are_left_as_they_were(tower: TextSide, variant: str) -> None:
    model, bag = model_of(tower, variant=variant), bag_of(7)
    before = bag.map(torch.clone)
    first, second = explain(model, bag), explain(model, bag)
    np.testing.assert_array_equal(first.attention, second.attention)
    np.testing.assert_array_equal(first.logits, second.logits)
    for name, value in bag.features().items():
        assert torch.equal(value, before.features()[name])
    assert model(bag).details == {}


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_a_slide_of_one_patch(tower: TextSide, variant: str) -> None:
    found = explain(model_of(tower, variant=variant), bag_of(8, num_parents=1))
    assert np.isfinite(found.logits).all() and np.isnan(found.hit_ratio)
