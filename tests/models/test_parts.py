"""Filtering, message passing, logits and text loss of the paper variant, against brute-force twins."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models import htcl, network
from models.filtering import TextGuidedFiltering
from models.graph import NODE_TYPES, HierarchicalGraph
from models.hierarchical_attention import ParentChildAttention, ParentChildSage
from models.logits import scale_logits
from models.message_passing import HierarchicalLayer, HierarchicalMessages, Sage
from models.network import Chosen, GraphNetwork
from tests.support import twins
from tests.support.random_slide import random_bag, random_texts
from utils.interface import Bag, Embeddings

MODES = ("full", "no_mask_propagation", "high_only", "none")


def filtered_as_masks(bag: Bag, graph: HierarchicalGraph) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The graph's edges over all parents, as the twin gives them."""
    num_parents = len(bag.low_features)
    retained = torch.zeros(num_parents, dtype=torch.bool)
    retained[graph.retained] = True
    keep_high = torch.zeros(num_parents, *graph.keep_high.shape[1:], dtype=torch.bool)
    keep_high[graph.retained] = graph.keep_high
    return graph.keep_low, retained, keep_high


def assert_filtered_as_the_twin(bag: Bag, low: torch.Tensor, high: torch.Tensor, alpha: float, mode: str) -> None:
    ours = filtered_as_masks(bag, TextGuidedFiltering(alpha, mode)(bag, low, high))
    arguments = bag.low_features, bag.high_features, bag.child_mask, low, high, len(high) // len(low), alpha, mode
    for name, mine, theirs in zip(("keep_low", "retained", "keep_high"), ours, twins.tgdf(*arguments), strict=True):
        assert torch.equal(mine, theirs), name


@pytest.mark.parametrize("mode", MODES)
@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    num_parents=st.integers(1, 9),
    num_children=st.integers(1, 5),
    missing=st.sampled_from([0.0, 0.4, 1.0]),
    num_subtexts=st.integers(1, 3),
    alpha=st.sampled_from([-0.5, 0.0, 0.5, 1.2]),
)
def test_filtering(
    mode: str, seed: int, num_parents: int, num_children: int, missing: float, num_subtexts: int, alpha: float
) -> None:
    bag = random_bag(seed, num_parents, num_children, missing=missing)
    low, high = random_texts(seed, num_subtexts=num_subtexts)
    assert_filtered_as_the_twin(bag, low, high, alpha, mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("alpha", [0.5, 50.0])
@pytest.mark.parametrize("num_parents", [1, 6])
def test_filtering_of_identical_patches_and_of_none_that_pass(mode: str, alpha: float, num_parents: int) -> None:
    """Every text keeps its best patches."""
    bag, (low, high) = random_bag(0, num_parents), random_texts(0)
    assert_filtered_as_the_twin(bag, low, high, alpha, mode)
    same = replace(
        bag,
        low_features=bag.low_features[:1].expand(num_parents, -1),
        high_features=bag.high_features[:1, :1].expand(num_parents, 4, -1),
        child_mask=torch.ones(num_parents, 4, dtype=torch.bool),
    )
    assert_filtered_as_the_twin(same, low, high, alpha, mode)
    assert TextGuidedFiltering(alpha, mode)(same, low, high).keep_low.all()


def test_filtering_hand_made() -> None:
    """Cosines 1, 0, 0, 0 with one text: mean 0.25, std 0.5, threshold 0.5. Only the first parent stays."""
    low_features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 3.0]])
    high_features = torch.zeros(4, 2, 2)
    high_features[0] = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    high_features[1:, 0, 0] = 1.0  # the texts' best children, of parents that are not retained
    mask = torch.tensor([[True, True], [True, False], [True, False], [True, False]])
    texts = torch.tensor([[5.0, 0.0]])
    graph = TextGuidedFiltering(0.5)(Bag("slide", low_features, high_features, mask), texts, texts)
    assert graph.keep_low.squeeze(1).tolist() == [True, False, False, False]
    assert graph.retained.tolist() == [0]
    assert graph.keep_high.squeeze(-1).tolist() == [[True, False]]


def graph_of(seed: int, alpha: float = 0.0) -> HierarchicalGraph:
    bag, (low, high) = random_bag(seed), random_texts(seed)
    return TextGuidedFiltering(alpha)(bag, low.requires_grad_(), high.requires_grad_())


def messages_of(messages: HierarchicalMessages, graph: HierarchicalGraph) -> dict[str, torch.Tensor]:
    """What each node receives along the hierarchy, high_image as (R*C, D)."""
    tree = graph.high_text.view(len(graph.low_text), graph.num_subtexts, -1)
    families = {
        "image": (graph.low_image, graph.high_image, graph.child_mask, graph.retained),
        "text": (graph.low_text, tree, torch.ones(tree.shape[:2], dtype=torch.bool), torch.arange(len(tree))),
    }
    received = {}
    for modality, (parents, children, mask, rows) in families.items():
        collected = messages.collect(modality, messages.ask(modality, parents[rows]), children, mask)
        received[f"low_{modality}"] = messages.answer(modality, parents, collected, rows, mask)
        down = messages.down(modality, parents[rows]).unsqueeze(1).expand_as(children)
        own = messages.own_weight(modality)
        received[f"high_{modality}"] = (down if own is None else down + children @ own.t()).flatten(0, 1)
    return received


@pytest.mark.parametrize("num_nodes, num_neighbours", [(9, 3), (3, 9), (5, 5), (4, 1), (1, 4)])
def test_sage_against_its_twin(num_nodes: int, num_neighbours: int) -> None:
    """Both orders of averaging and projecting, and nodes without neighbours."""
    torch.manual_seed(0)
    sage = Sage(6).double()
    nodes = torch.randn(num_nodes, 6, dtype=torch.float64)
    neighbours = torch.randn(num_neighbours, 6, dtype=torch.float64)
    adjacency = torch.rand(num_nodes, num_neighbours) < 0.5
    adjacency[0] = False
    expected = twins.sage(nodes, neighbours, adjacency, sage.neighbour.weight, sage.neighbour.bias, sage.root.weight)
    torch.testing.assert_close(sage(nodes, neighbours, adjacency), expected)


def scattered(graph: HierarchicalGraph) -> tuple[torch.Tensor, torch.Tensor]:
    """Adjacency of low_image to the R*C child slots, and of the slots to low_image."""
    num_retained, num_slots = graph.child_mask.shape
    up = torch.zeros(len(graph.low_image), num_retained * num_slots, dtype=torch.bool)
    for row, parent in enumerate(graph.retained.tolist()):
        for slot in range(num_slots):
            up[parent, row * num_slots + slot] = graph.child_mask[row, slot]
    return up, up.t()


def text_tree(graph: HierarchicalGraph) -> torch.Tensor:
    children = torch.arange(len(graph.high_text)) // graph.num_subtexts
    return torch.arange(len(graph.low_text)).unsqueeze(1) == children


def expected_attention(messages: HierarchicalMessages, graph: HierarchicalGraph) -> dict[str, torch.Tensor]:
    """The four relations by the twin; a relation whose queries do not exist has weight 1, whatever the query."""
    slots = graph.high_image.flatten(0, 1)
    up, down = scattered(graph)
    relations = {
        "image_up": (graph.low_image, slots, up, 0, 1),
        "image_down": (slots, graph.low_image, down, 1, 0),
        "text_up": (graph.low_text, graph.high_text, text_tree(graph), 0, 1),
        "text_down": (graph.high_text, graph.low_text, text_tree(graph).t(), 1, 0),
    }
    expected = {}
    for name, (queries, keys, adjacency, of_query, of_key) in relations.items():
        part = messages.relations[name]
        assert isinstance(part, ParentChildAttention)
        nothing = torch.zeros_like(part.value.weight)
        query = nothing if part.query is None else part.query.weight
        key = nothing if part.key is None else part.key.weight
        scales = messages.scales[of_query], messages.scales[of_key]
        weights = query, key, part.value.weight, part.output.weight
        expected[name] = twins.msa(queries, keys, adjacency, *scales, *weights, num_heads=2)
    return expected


@pytest.mark.parametrize("aggregator", ["msa", "maa", "saa", "attention"])
@pytest.mark.parametrize("seed", range(3))
def test_attention_against_its_twin(aggregator: str, seed: int) -> None:
    torch.manual_seed(seed)
    graph = graph_of(seed)
    messages = HierarchicalMessages(8, aggregator).double()
    ours = messages_of(messages, graph)
    expected = expected_attention(messages, graph)
    real = graph.child_mask.flatten()
    torch.testing.assert_close(ours["low_image"], expected["image_up"])
    torch.testing.assert_close(ours["high_image"][real], expected["image_down"][real])
    torch.testing.assert_close(ours["low_text"], expected["text_up"])
    torch.testing.assert_close(ours["high_text"], expected["text_down"])
    uses_scales = bool(messages.scales.abs().sum() > 0)
    assert uses_scales == (aggregator in ("msa", "saa"))
    is_shared = messages.relations["image_up"] is messages.relations["text_down"]
    assert is_shared == (aggregator in ("saa", "attention"))


def test_graphsage_in_place_of_attention() -> None:
    torch.manual_seed(0)
    graph = graph_of(1)
    messages = HierarchicalMessages(8, "sage").double()
    ours = messages_of(messages, graph)
    slots = graph.high_image.flatten(0, 1)
    up, down = scattered(graph)
    tree = text_tree(graph)
    cases = {
        "image_up": (graph.low_image, slots, up, ours["low_image"]),
        "image_down": (slots, graph.low_image, down, ours["high_image"]),
        "text_up": (graph.low_text, graph.high_text, tree, ours["low_text"]),
        "text_down": (graph.high_text, graph.low_text, tree.t(), ours["high_text"]),
    }
    for name, (nodes, neighbours, adjacency, message) in cases.items():
        part = messages.relations[name]
        assert isinstance(part, ParentChildSage)
        weights = part.neighbour.weight, part.neighbour.bias, part.root.weight
        expected = twins.sage(nodes, neighbours, adjacency, *weights)
        real = graph.child_mask.flatten() if name == "image_down" else slice(None)
        torch.testing.assert_close(message[real], expected[real])


@pytest.mark.parametrize(
    "direction, silent",
    [("up", ("high_image", "high_text")), ("down", ("low_image", "low_text")), ("none", NODE_TYPES)],
)
def test_directions(direction: str, silent: tuple[str, ...]) -> None:
    """Messages go one way, both or none, and parameters exist for those only."""
    torch.manual_seed(0)
    graph = graph_of(2)
    messages = HierarchicalMessages(8, "msa", direction).double()
    for name, message in messages_of(messages, graph).items():
        assert bool((message == 0).all()) == (name in silent), name
    assert {name.split("_")[1] for name in messages.relations} == ({direction} - {"none"})
    assert (len(list(messages.parameters())) == 0) == (direction == "none")


def choose_all(embeddings: Embeddings) -> Chosen:
    """All images, in their order."""
    return Chosen(torch.arange(len(embeddings.low_image)), embeddings.child_mask.flatten().nonzero().squeeze(1))


@pytest.mark.parametrize("block", [1, 2, 64])
def test_both_layers_against_their_twins(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """h <- SAGE + (h + MSA); two layers, ReLU after the first, unit vectors after the second."""
    monkeypatch.setitem(network.BLOCK, "cpu", block)
    torch.manual_seed(0)
    graph = graph_of(3)
    graph_network = GraphNetwork([HierarchicalLayer(8).double() for _ in range(2)])
    current = graph
    for index, layer in enumerate(graph_network.layers):
        assert isinstance(layer, HierarchicalLayer)
        attention = expected_attention(layer.hierarchy, current)
        slots = current.high_image.flatten(0, 1)
        keep_high = graph.keep_high.flatten(0, 1)
        inputs = {
            "low_image": (current.low_image, current.low_text, graph.keep_low, "image_up"),
            "high_image": (slots, current.high_text, keep_high, "image_down"),
            "low_text": (current.low_text, current.low_image, graph.keep_low.t(), "text_up"),
            "high_text": (current.high_text, slots, keep_high.t(), "text_down"),
        }
        updated = {}
        for name, (own, others, adjacency, relation) in inputs.items():
            part = layer.intra[name]
            sage = twins.sage(own, others, adjacency, part.neighbour.weight, part.neighbour.bias, part.root.weight)
            updated[name] = twins.update(own, sage, attention[relation], is_last=index == 1)
        updated["high_image"] = updated["high_image"].view_as(graph.high_image)
        current = replace(current, **updated)
    with torch.no_grad():
        without_gradients, same = graph_network(graph, choose_all)
    assert same is without_gradients
    everywhere, chosen = graph_network(graph, choose_all)
    with torch.no_grad():
        spare = replace(graph, high_image=graph.high_image.clone())
        in_place, _ = graph_network(spare, choose_all, keep_graph=False)
    real = graph.child_mask
    for name in NODE_TYPES:
        expected = getattr(current, name)
        places = real if name == "high_image" else slice(None)
        for embeddings in (without_gradients, everywhere, in_place):
            torch.testing.assert_close(getattr(embeddings, name)[places], expected[places].detach())
        ours = chosen.high_image.squeeze(1) if name == "high_image" else getattr(chosen, name)
        torch.testing.assert_close(ours, expected[places])
    assert not any(getattr(everywhere, name).requires_grad for name in NODE_TYPES)


def test_with_dropout_the_chosen_images_are_those_of_the_whole_pass() -> None:
    """A hidden value dropped in the pass over all children is dropped where it is computed again."""
    torch.manual_seed(0)
    graph = graph_of(3)
    graph_network = GraphNetwork([HierarchicalLayer(8).double() for _ in range(2)], dropout=0.5)
    embeddings, chosen = graph_network(graph, choose_all)
    torch.testing.assert_close(chosen.low_image.detach(), embeddings.low_image)
    torch.testing.assert_close(chosen.high_image.squeeze(1).detach(), embeddings.high_image[graph.child_mask])
    without, _ = graph_network.eval()(graph, choose_all)
    assert not torch.allclose(without.high_image, embeddings.high_image)
    assert not torch.allclose(without.low_image, embeddings.low_image)
    assert not torch.allclose(without.high_text, embeddings.high_text)


@pytest.mark.parametrize("num_images", [0, 1, 3, 40])
@pytest.mark.parametrize("top_k", [1, 2, 100])
def test_logits(num_images: int, top_k: int) -> None:
    generator = torch.Generator().manual_seed(num_images)
    images = torch.nn.functional.normalize(torch.randn(num_images, 8, generator=generator, dtype=torch.float64), dim=1)
    texts = torch.nn.functional.normalize(torch.randn(12, 8, generator=generator, dtype=torch.float64), dim=1)
    ours = scale_logits(texts @ images.t(), 3, top_k, torch.tensor(4.5871, dtype=torch.float64))
    torch.testing.assert_close(ours, twins.top_k_logits(images, texts, 3, top_k, 4.5871))


@pytest.mark.parametrize("variant", ["class_wise", "instance_wise", "share_parent"])
@pytest.mark.parametrize("num_classes, num_low, num_subtexts", [(2, 4, 3), (3, 2, 1), (2, 1, 2)])
def test_text_loss(variant: str, num_classes: int, num_low: int, num_subtexts: int) -> None:
    low, high = random_texts(5, num_classes, num_low, num_subtexts)
    loss = htcl.HTCL[variant]
    assert loss is not None
    torch.testing.assert_close(loss(low, high, num_classes), twins.htcl(low, high, num_classes, variant))
    low, high = low.requires_grad_(), high.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b, num_classes), (low, high))


@pytest.mark.parametrize("dropout", [0.0, 0.25])
@pytest.mark.parametrize("aggregator", ["msa", "sage"])
def test_gradients_of_the_network(aggregator: str, dropout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """gradcheck over the texts and every parameter, through all images."""
    monkeypatch.setitem(network.BLOCK, "cpu", 2)
    torch.manual_seed(0)
    bag, (low, high) = random_bag(4, num_parents=4, num_children=3, dim=4), random_texts(4, num_subtexts=2, dim=4)
    graph = TextGuidedFiltering(0.0)(bag, low, high)
    graph_network = GraphNetwork([HierarchicalLayer(4, aggregator).double() for _ in range(2)], dropout)
    names = [name for name, _ in graph_network.named_parameters()]
    values = [parameter.detach().clone().requires_grad_() for parameter in graph_network.parameters()]

    def run(low_text: torch.Tensor, high_text: torch.Tensor, *parameters: torch.Tensor) -> tuple[torch.Tensor, ...]:
        torch.manual_seed(1)
        inputs = replace(graph, low_text=low_text, high_text=high_text), choose_all
        _, chosen = torch.func.functional_call(graph_network, dict(zip(names, parameters, strict=True)), inputs)
        return chosen.low_image, chosen.high_image, chosen.low_text, chosen.high_text

    assert torch.autograd.gradcheck(run, (low.requires_grad_(), high.requires_grad_(), *values))
