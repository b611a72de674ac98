"""The graph as a HeteroData."""

import pytest
import torch

from models.filtering import TextGuidedFiltering
from models.graph import HierarchicalGraph
from tests.support.random_slide import random_bag, random_texts


@pytest.fixture(params=range(3))
def graph(request: pytest.FixtureRequest) -> HierarchicalGraph:
    bag, (low, high) = random_bag(request.param, num_parents=8), random_texts(request.param)
    return TextGuidedFiltering(0.2)(bag, low, high)


def test_hetero_data(graph: HierarchicalGraph) -> None:
    data = graph.to_hetero_data()
    data.validate()
    assert set(data.node_types) == {"low_image", "high_image", "low_text", "high_text"}
    assert data["high_image"].num_nodes == int(graph.child_mask.sum())
    places = graph.child_mask.nonzero()
    intra = ("low_image", "intra", "low_text")
    assert {tuple(edge) for edge in data[intra].edge_index.t().tolist()} == {
        (p, t) for p in range(len(graph.low_image)) for t in range(len(graph.low_text)) if graph.keep_low[p, t]
    }
    assert {tuple(edge) for edge in data["high_image", "intra", "high_text"].edge_index.t().tolist()} == {
        (n, t)
        for n, (row, slot) in enumerate(places.tolist())
        for t in range(len(graph.high_text))
        if graph.keep_high[row, slot, t]
    }
    assert data["high_image", "hierarchy", "low_image"].edge_index.t().tolist() == [
        [n, int(graph.retained[row])] for n, (row, _) in enumerate(places.tolist())
    ]
    assert data["low_text", "hierarchy", "high_text"].edge_index.t().tolist() == [[s // 3, s] for s in range(12)]
    for source, name, target in data.edge_types:
        there, back = data[source, name, target].edge_index, data[target, name, source].edge_index
        assert torch.equal(there, back.flip(0))
    for n, (row, slot) in enumerate(places.tolist()):
        assert torch.equal(data["high_image"].x[n], graph.high_image[row, slot])
