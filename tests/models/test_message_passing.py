"""Message passing of the paper variant, in both ways of computing it, against brute-force twins."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.blocked import blocked_network
from models.blocked.blocked_network import BlockedNetwork
from models.blocked.layer import BlockedLayer, sage
from models.blocked.messages import downwards, own_weight, upwards
from models.filtering import TextGuidedFiltering
from models.graph import NODE_TYPES, Chosen, HierarchicalGraph, Network
from models.network import HIERARCHY, GraphNetwork, HeteroLayer
from models.relations import HierarchyWeights, LayerWeights, Sage, ScaleAttention
from tests.support import twins
from tests.support.random_slide import random_bag, random_texts
from utils.interface import Embeddings


def graph_of(seed: int, alpha: float = 0.0) -> HierarchicalGraph:
    bag, (low, high) = random_bag(seed), random_texts(seed)
    return TextGuidedFiltering(alpha)(bag, low.requires_grad_(), high.requires_grad_())


def blocked_messages(layer: BlockedLayer, graph: HierarchicalGraph) -> dict[str, Tensor]:
    """What each node receives along the hierarchy, high_image as (R*C, D)."""
    tree = graph.high_text.view(len(graph.low_text), graph.num_subtexts, -1)
    families = {
        "image": (graph.low_image, graph.high_image, graph.child_mask, graph.retained),
        "text": (graph.low_text, tree, torch.ones(tree.shape[:2], dtype=torch.bool), torch.arange(len(tree))),
    }
    received = {}
    for modality, (parents, children, mask, rows) in families.items():
        up = upwards(layer.hierarchy, modality)
        collected, _ = up.collect(up.ask(parents[rows]), children, mask)
        received[f"low_{modality}"] = up.answer(parents, collected, rows, mask)
        down = downwards(layer.hierarchy, modality, parents[rows]).unsqueeze(1).expand_as(children)
        own = own_weight(layer.hierarchy, modality)
        received[f"high_{modality}"] = (down if own is None else down + children @ own.t()).flatten(0, 1)
    return received


def hetero_messages(layer: HeteroLayer, graph: HierarchicalGraph) -> dict[str, Tensor]:
    data = graph.to_hetero_data()
    received = {name: torch.zeros_like(nodes) for name, nodes in data.x_dict.items()}
    for relation, msa in layer.msa.items():
        sender, _, receiver = HIERARCHY[relation]
        scales = [layer.hierarchy.scales[0 if name.startswith("low") else 1] for name in (sender, receiver)]
        nodes = data[sender].x + scales[0], data[receiver].x + scales[1]
        received[receiver], _ = msa(*nodes, data.edge_index_dict[HIERARCHY[relation]])
    slots = torch.zeros_like(graph.high_image)
    slots[graph.child_mask] = received["high_image"]
    return {**received, "high_image": slots.flatten(0, 1)}


WAYS = [(BlockedLayer, blocked_messages), (HeteroLayer, hetero_messages)]
both_ways = pytest.mark.parametrize(("layer_class", "messages_of"), WAYS, ids=["blocked", "pyg"])
MessagesOf = Callable[[LayerWeights, HierarchicalGraph], dict[str, Tensor]]


@pytest.mark.parametrize("num_nodes, num_neighbours", [(9, 3), (3, 9), (5, 5), (4, 1), (1, 4)])
def test_sage_against_its_twin(num_nodes: int, num_neighbours: int) -> None:
    """Both orders of averaging and projecting, and nodes without neighbours."""
    torch.manual_seed(0)
    weights = Sage(6).double()
    nodes = torch.randn(num_nodes, 6, dtype=torch.float64)
    neighbours = torch.randn(num_neighbours, 6, dtype=torch.float64)
    adjacency = torch.rand(num_nodes, num_neighbours) < 0.5
    adjacency[0] = False
    parts = weights.neighbour.weight, weights.neighbour.bias, weights.root.weight
    expected = twins.sage(nodes, neighbours, adjacency, *parts)
    torch.testing.assert_close(sage(weights, nodes, neighbours, adjacency), expected)


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


def expected_attention(messages: HierarchyWeights, graph: HierarchicalGraph) -> dict[str, torch.Tensor]:
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
        assert isinstance(part, ScaleAttention)
        nothing = torch.zeros_like(part.value.weight)
        query = nothing if part.query is None else part.query.weight
        key = nothing if part.key is None else part.key.weight
        scales = messages.scales[of_query], messages.scales[of_key]
        weights = query, key, part.value.weight, part.output.weight
        expected[name] = twins.msa(queries, keys, adjacency, *scales, *weights, num_heads=2)
    return expected


@pytest.mark.parametrize("aggregator", ["msa", "maa", "saa", "attention"])
@pytest.mark.parametrize("seed", range(3))
@both_ways
def test_attention_against_its_twin(
    layer_class: type[LayerWeights], messages_of: MessagesOf, aggregator: str, seed: int
) -> None:
    torch.manual_seed(seed)
    graph = graph_of(seed)
    layer = layer_class(8, aggregator).double()
    messages = layer.hierarchy
    ours = messages_of(layer, graph)
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


@both_ways
def test_graphsage_in_place_of_attention(layer_class: type[LayerWeights], messages_of: MessagesOf) -> None:
    torch.manual_seed(0)
    graph = graph_of(1)
    layer = layer_class(8, "sage").double()
    messages = layer.hierarchy
    ours = messages_of(layer, graph)
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
        assert isinstance(part, Sage)
        weights = part.neighbour.weight, part.neighbour.bias, part.root.weight
        expected = twins.sage(nodes, neighbours, adjacency, *weights)
        real = graph.child_mask.flatten() if name == "image_down" else slice(None)
        torch.testing.assert_close(message[real], expected[real])


@pytest.mark.parametrize(
    "direction, silent",
    [("up", ("high_image", "high_text")), ("down", ("low_image", "low_text")), ("none", NODE_TYPES)],
)
@both_ways
def test_directions(
    layer_class: type[LayerWeights], messages_of: MessagesOf, direction: str, silent: tuple[str, ...]
) -> None:
    """Messages go one way, both or none, and parameters exist for those only."""
    torch.manual_seed(0)
    graph = graph_of(2)
    layer = layer_class(8, "msa", direction).double()
    messages = layer.hierarchy
    for name, message in messages_of(layer, graph).items():
        assert bool((message == 0).all()) == (name in silent), name
    assert {name.split("_")[1] for name in messages.relations} == ({direction} - {"none"})
    assert (len(list(messages.parameters())) == 0) == (direction == "none")


def choose_all(embeddings: Embeddings) -> Chosen:
    """All images, in their order."""
    return Chosen(torch.arange(len(embeddings.low_image)), embeddings.child_mask.flatten().nonzero().squeeze(1))


def blocked(dim: int, aggregator: str = "msa", dropout: float = 0.0) -> BlockedNetwork:
    return BlockedNetwork([BlockedLayer(dim, aggregator).double() for _ in range(2)], choose_all, dropout)


def hetero(dim: int, aggregator: str = "msa", dropout: float = 0.0) -> GraphNetwork:
    return GraphNetwork([HeteroLayer(dim, aggregator).double() for _ in range(2)], dropout)


def spare(graph: HierarchicalGraph) -> HierarchicalGraph:
    """A copy for a network to use up."""
    return replace(graph, high_image=graph.high_image.clone())


def two_layers_of_twins(network: Network, graph: HierarchicalGraph) -> HierarchicalGraph:
    """h <- SAGE + (h + MSA); ReLU after the first layer, unit vectors after the second."""
    current = graph
    for index, layer in enumerate(network.layers):
        assert isinstance(layer, LayerWeights)
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
            received = twins.sage(own, others, adjacency, part.neighbour.weight, part.neighbour.bias, part.root.weight)
            updated[name] = twins.update(own, received, attention[relation], is_last=index == 1)
        updated["high_image"] = updated["high_image"].view_as(graph.high_image)
        current = replace(current, **updated)
    return current


@pytest.mark.parametrize("block", [1, 2, 64])
def test_both_layers_in_blocks_against_their_twins(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(blocked_network.BLOCK, "cpu", block)
    torch.manual_seed(0)
    graph, network = graph_of(3), blocked(8)
    twin = two_layers_of_twins(network, graph)
    with torch.no_grad():
        without_gradients, same, _ = network(spare(graph))
    assert same is without_gradients
    everywhere, chosen, _ = network(graph)
    for name in NODE_TYPES:
        expected = getattr(twin, name)
        places = graph.child_mask if name == "high_image" else slice(None)
        for embeddings in (without_gradients, everywhere):
            torch.testing.assert_close(getattr(embeddings, name)[places], expected[places].detach())
        ours = chosen.high_image.squeeze(1) if name == "high_image" else getattr(chosen, name)
        torch.testing.assert_close(ours, expected[places])
    assert not any(getattr(everywhere, name).requires_grad for name in NODE_TYPES)


def test_both_layers_of_pytorch_geometric_against_their_twins() -> None:
    torch.manual_seed(0)
    graph, network = graph_of(3), hetero(8)
    twin = two_layers_of_twins(network, graph)
    embeddings, trained, _ = network(graph)
    assert trained is embeddings
    for name in NODE_TYPES:
        places = graph.child_mask if name == "high_image" else slice(None)
        torch.testing.assert_close(getattr(embeddings, name)[places], getattr(twin, name)[places])


def test_with_dropout_the_chosen_images_are_those_of_the_whole_pass() -> None:
    """A hidden value dropped in the pass over all children is dropped where it is computed again."""
    torch.manual_seed(0)
    graph, network = graph_of(3), blocked(8, dropout=0.5)
    embeddings, chosen, _ = network(graph)
    torch.testing.assert_close(chosen.low_image.detach(), embeddings.low_image)
    torch.testing.assert_close(chosen.high_image.squeeze(1).detach(), embeddings.high_image[graph.child_mask])
    without, _, _ = network.eval()(graph)
    assert not torch.allclose(without.high_image, embeddings.high_image)
    assert not torch.allclose(without.low_image, embeddings.low_image)
    assert not torch.allclose(without.high_text, embeddings.high_text)


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.25])
@pytest.mark.parametrize("aggregator", ["msa", "sage"])
@pytest.mark.parametrize("build", [blocked, hetero])
def test_gradients_of_the_network(
    build: Callable[..., Network], aggregator: str, dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gradcheck over the texts and every parameter, through all images, along a random direction of each: one number
    at a time takes minutes."""
    monkeypatch.setitem(blocked_network.BLOCK, "cpu", 2)
    torch.manual_seed(0)
    bag, (low, high) = random_bag(4, num_parents=4, num_children=3, dim=4), random_texts(4, num_subtexts=2, dim=4)
    graph = TextGuidedFiltering(0.0)(bag, low, high)
    network = build(4, aggregator, dropout)
    names = [name for name, _ in network.named_parameters()]
    values = [parameter.detach().clone().requires_grad_() for parameter in network.parameters()]

    def run(low_text: Tensor, high_text: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
        torch.manual_seed(1)
        inputs = replace(graph, low_text=low_text, high_text=high_text)
        trained = torch.func.functional_call(network, dict(zip(names, parameters, strict=True)), (inputs,)).trained
        return trained.low_image, trained.high_image, trained.low_text, trained.high_text

    assert torch.autograd.gradcheck(run, (low.requires_grad_(), high.requires_grad_(), *values), fast_mode=True)
