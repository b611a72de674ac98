"""The two ways of computing the graph layers, ``--graph_backend``: one method, one set of weights."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.blocked import blocked_network
from models.build import build_model
from models.graph import NODE_TYPES, HierarchicalGraph, Propagated
from models.hive_mil import HiveMIL
from models.tiny_clip import save_tiny_clip
from models.vlms import TextSide, load_text_side
from tests.support.random_slide import FixedTexts, random_bag, random_texts
from utils.config import Config
from utils.interface import Bag

K, O, S, D = 3, 2, 2, 16  # noqa: E741
AGGREGATORS = ("msa", "maa", "saa", "attention", "sage")
DIRECTIONS = ("both", "up", "down", "none")
OTHER_OPTIONS: list[dict[str, Any]] = [
    *({"tgdf": mode} for mode in ("no_mask_propagation", "high_only", "none")),
    *({"htcl": loss} for loss in ("instance_wise", "share_parent", "none")),
    *({"scales": scales} for scales in ("low", "high")),
    {"scales": "low", "htcl": "none"},
    {"bag_loss": "focal"},
    {"top_k_low": 100, "top_k_high": 1},
]


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> TextSide:
    folder = tmp_path_factory.mktemp("clip")
    save_tiny_clip(folder, width=D, seed=3)
    return load_text_side("tiny", str(folder))


def model_of(tower: TextSide, graph_backend: str, dtype: torch.dtype = torch.float64, **options: Any) -> HiveMIL:
    """Its text features are given, so that all is in float64, unless another dtype is."""
    given = {"num_low_mag_texts": O, "num_high_mag_subtexts": S, "num_context_tokens": 4, "top_k_high": 5, **options}
    texts = [f"low text {n} of tissue" for n in range(K * O)], [f"high text {n} of cells" for n in range(K * O * S)]
    torch.manual_seed(0)
    model = build_model(Config(graph_backend=graph_backend, **given), tower, *texts, K)
    assert isinstance(model, HiveMIL)
    model.prompts = FixedTexts(*random_texts(0, K, O, S, D))
    return model.to(dtype)


def both(tower: TextSide, **options: Any) -> tuple[HiveMIL, HiveMIL]:
    return model_of(tower, "blocked", **options), model_of(tower, "pyg", **options)


def bag_of(seed: int = 0, num_parents: int = 9, missing: float = 0.3) -> Bag:
    return random_bag(seed, num_parents, 5, D, missing, label=1)


def with_children(bag: Bag, mask: Tensor) -> Bag:
    return replace(bag, child_mask=mask, high_features=bag.high_features * mask.unsqueeze(-1))


def padded(bag: Bag) -> Bag:
    """Three more slots, all empty, and what stands in an empty slot is not 0."""
    parents = len(bag.child_mask)
    mask = torch.cat([bag.child_mask, torch.zeros(parents, 3, dtype=torch.bool)], 1)
    features = torch.cat([bag.high_features, bag.high_features[:, :3]], 1)
    return replace(bag, child_mask=mask, high_features=torch.where(mask.unsqueeze(-1), features, 7.0))


SLIDES: dict[str, Callable[[], Bag]] = {
    "every child there": lambda: bag_of(1, missing=0.0),
    "padding": lambda: padded(bag_of(2)),
    "one patch": lambda: bag_of(3, num_parents=1),
    "one patch with children": lambda: replace(bag_of(3, 1), child_mask=torch.ones(1, 5, dtype=torch.bool)),
    "one child": lambda: with_children(bag_of(4), torch.eye(9, 5, dtype=torch.bool) & (torch.arange(9) == 2)[:, None]),
    "no child": lambda: bag_of(5, missing=1.1),
    "many parents": lambda: bag_of(6, num_parents=150),
}


def gradients(model: HiveMIL, loss: Tensor) -> dict[str, Tensor | None]:
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    return dict(zip(trained, found, strict=True))


def assert_same(blocked: HiveMIL, pyg: HiveMIL, bag: Bag, **tolerance: float) -> None:
    """Logits, losses, embeddings, attention and gradients."""
    found, expected = (model(bag, attention=True) for model in (blocked, pyg))
    ours, theirs = gradients(blocked, found.loss), gradients(pyg, expected.loss)
    assert found.losses.keys() == expected.losses.keys()
    with torch.no_grad():
        evaluated = blocked(bag, attention=True)
    for output in (found, evaluated):
        torch.testing.assert_close(output.logits, expected.logits, **tolerance)
        torch.testing.assert_close(output.losses, expected.losses, **tolerance)
        nodes = output.embeddings
        assert torch.equal(nodes.retained, expected.embeddings.retained)
        assert torch.equal(nodes.child_mask, expected.embeddings.child_mask)
        for name in NODE_TYPES:
            places = nodes.child_mask if name == "high_image" else slice(None)
            value, other = (getattr(embeddings, name)[places] for embeddings in (nodes, expected.embeddings))
            torch.testing.assert_close(value, other, **tolerance, msg=lambda text, name=name: f"{name}: {text}")
        assert output.details.keys() == {"image_attention", "text_attention"}
        torch.testing.assert_close(output.details, expected.details, **tolerance)
    assert list(ours) == list(theirs)
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], **tolerance, msg=lambda text, name=name: f"{name}: {text}")


EXACT = {"rtol": 1e-9, "atol": 1e-11}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.mark.parametrize(("aggregator", "direction"), [*product(AGGREGATORS, DIRECTIONS)])
def test_messages_between_scales(tower: TextSide, aggregator: str, direction: str) -> None:
    models = both(tower, hier_aggregator=aggregator, hier_direction=direction)
    for seed in range(2):
        assert_same(*models, bag_of(seed), **EXACT)
    models = both(tower, hier_aggregator=aggregator, hier_direction=direction, dtype=torch.float32)
    bag = bag_of().map(lambda values: values.float() if values.is_floating_point() else values)
    assert_same(*models, bag, **CLOSE)


@pytest.mark.parametrize("options", OTHER_OPTIONS, ids=str)
def test_other_options(tower: TextSide, options: dict[str, Any]) -> None:
    assert_same(*both(tower, **options), bag_of(3), **EXACT)


@pytest.mark.parametrize("aggregator", ["msa", "sage"])
@pytest.mark.parametrize("slide", SLIDES)
def test_slides(tower: TextSide, slide: str, aggregator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    models = both(tower, hier_aggregator=aggregator)
    assert_same(*models, SLIDES[slide](), **EXACT)
    monkeypatch.setitem(blocked_network.BLOCK, "cpu", 2)
    assert_same(*models, SLIDES[slide](), **EXACT)


class ColumnDropout(nn.Dropout):
    """Drops the same columns of every node, so that the order of the draws does not matter."""

    def forward(self, nodes: Tensor) -> Tensor:
        kept = (torch.arange(nodes.shape[-1]) % 4 > 0).to(nodes.dtype) / (1 - self.p)
        return nodes * kept if self.training else nodes


def test_dropout_in_training_and_evaluation(tower: TextSide) -> None:
    models = both(tower, drop_out=True)
    for model in models:
        assert isinstance(model.network.dropout, nn.Dropout) and model.network.dropout.p == 0.25
        model.network.dropout = ColumnDropout(0.25)
    losses = []
    for training in (True, False):
        for model in models:
            model.train(training)
        assert_same(*models, bag_of(), **EXACT)
        losses.append(models[0](bag_of()).loss)
    assert not torch.allclose(*losses)


def test_drawn_dropout(tower: TextSide) -> None:
    model = model_of(tower, "pyg", drop_out=True).train()
    first, second = model(bag_of()).loss, model(bag_of()).loss
    assert not torch.equal(first, second)
    model.eval()
    assert torch.equal(model(bag_of()).loss, model(bag_of()).loss)


def test_a_graph_without_retained_parents(tower: TextSide) -> None:
    """The filtering gives none; the networks take it."""
    outputs: list[Propagated] = []
    for model in both(tower):
        graph = model.graph(bag_of())
        none = slice(0, 0)
        parts = {name: getattr(graph, name)[none] for name in ("high_image", "retained", "child_mask", "keep_high")}
        graph = HierarchicalGraph(
            **{**vars(graph), **parts, "keep_low": torch.zeros_like(graph.keep_low)}  # type: ignore[arg-type]
        )
        outputs.append(model.network(graph, attention=True))
    found, expected = outputs
    for name in NODE_TYPES:
        torch.testing.assert_close(getattr(found.embeddings, name), getattr(expected.embeddings, name).detach())
    assert found.attention is not None and expected.attention is not None
    torch.testing.assert_close(found.attention, expected.attention)
    assert found.attention.image.shape == (2, 0, 5)


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_checkpoints_are_interchangeable(tower: TextSide, aggregator: str) -> None:
    """Names in the same order, which optimisers go by; one seed gives the same weights; either loads the other's."""
    models = both(tower, hier_aggregator=aggregator)
    first, second = (model.checkpoint() for model in models)
    assert list(first) == list(second)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    blocked, pyg = models
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in blocked.network.parameters():
            parameter.add_(torch.randn_like(parameter) / 4)
    assert not torch.allclose(blocked(bag_of()).logits, pyg(bag_of()).logits, rtol=1e-3)
    pyg.load_checkpoint(blocked.checkpoint())
    torch.testing.assert_close(blocked(bag_of()).logits, pyg(bag_of()).logits)
    with torch.no_grad():
        for parameter in pyg.network.parameters():
            parameter.mul_(0.7)
    blocked.load_checkpoint(pyg.checkpoint())
    torch.testing.assert_close(blocked(bag_of()).logits, pyg(bag_of()).logits)


def test_reduced_precision(tower: TextSide) -> None:
    """All images count, since which are the best may turn on the last bit."""
    models = both(tower, dtype=torch.float32, top_k_low=9, top_k_high=100)
    bag = bag_of().map(lambda values: values.float() if values.is_floating_point() else values)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = (model(bag) for model in models)
    torch.testing.assert_close(found.loss, expected.loss, rtol=0.05, atol=0.05)
    expected.loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in models[1].network.parameters())
