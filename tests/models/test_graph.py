"""The graph as a HeteroData, and PyTorch Geometric's own layers on it."""

import pytest
import torch
from torch_geometric.nn import HeteroConv, SAGEConv

from models.filtering import TextGuidedFiltering
from models.graph import HierarchicalGraph
from models.message_passing import IntraScaleSage
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


def test_sage_equals_heteroconv(graph: HierarchicalGraph) -> None:
    torch.manual_seed(0)
    ours = IntraScaleSage(8).double()
    data = graph.to_hetero_data()
    convolutions, received = {}, {}
    for edge_type in data.edge_types:
        sender, name, receiver = edge_type
        if name != "intra":
            continue
        convolutions[edge_type] = convolution = SAGEConv(8, 8).double()
        convolution.lin_l.load_state_dict(ours[receiver].neighbour.state_dict())
        convolution.lin_r.load_state_dict(ours[receiver].root.state_dict())
        adjacency = torch.zeros(data[receiver].num_nodes, data[sender].num_nodes, dtype=torch.bool)
        adjacency[data[edge_type].edge_index[1], data[edge_type].edge_index[0]] = True
        received[receiver] = ours[receiver](data[receiver].x, data[sender].x, adjacency)
    expected = HeteroConv(convolutions, aggr="sum")(data.x_dict, data.edge_index_dict)
    assert set(received) == set(expected)
    for node_type, values in expected.items():
        torch.testing.assert_close(received[node_type], values)
