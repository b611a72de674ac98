"""The whole model, both variants: gradients, symmetries, slides on the edge."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.blocked.blocked_network import BlockedNetwork
from models.blocked.layer import BlockedLayer
from models.build import build_model
from models.filtering import TextGuidedFiltering
from models.hive_mil import HiveMIL
from models.htcl import class_wise
from models.logits import TopKLogits
from models.losses import build_bag_loss
from models.tiny_clip import save_tiny_clip
from models.vlms import TextSide, load_text_side
from tests.support.random_slide import FixedTexts, random_bag, random_texts
from utils.config import OPTIONS, Config
from utils.effects import options_without_effect
from utils.interface import Bag

CLASSES = ("A", "B", "C")
LOW = [f"pattern {o} of class {k}: broad {k} areas" for k in CLASSES for o in range(2)]
HIGH = [f"detail {s} of pattern {o} of class {k}: small {k} cells" for k in CLASSES for o in range(2) for s in range(2)]


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> TextSide:
    folder = tmp_path_factory.mktemp("clip")
    save_tiny_clip(folder, width=16)
    return load_text_side("tiny", str(folder))


def model_of(tower: TextSide, **options: object) -> HiveMIL:
    torch.manual_seed(0)
    config = Config(num_low_mag_texts=2, num_high_mag_subtexts=2, **options)
    return build_model(config, tower, LOW, HIGH, 3)


def bag_of(seed: int = 0, num_parents: int = 9, missing: float = 0.3) -> Bag:
    bag = random_bag(seed, num_parents, 5, 16, missing, label=1)
    return replace(bag, low_features=bag.low_features.float(), high_features=bag.high_features.float())


@pytest.mark.parametrize("class_specific", [False, True])
def test_every_trained_parameter_gets_a_gradient_and_the_tower_none(tower: TextSide, class_specific: bool) -> None:
    model = model_of(tower, class_specific_token=class_specific, drop_out=True).train()
    output = model(bag_of())
    assert output.loss is not None
    output.loss.backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(name.startswith(("network.", "prompts.scale_context_tokens")) for name in trained)
    silent = [name for name, parameter in trained.items() if parameter.grad is None or not parameter.grad.any()]
    assert silent == []
    context = model.prompts.context.grad
    assert context is not None
    assert (context.abs().amax(-1) > 0).all()
    assert all(parameter.grad is None for parameter in tower.parameters())


INTRA = ("mlp", "attention")
ABLATIONS = [
    *({"tgdf": mode} for mode in ("no_mask_propagation", "high_only", "none")),
    *({"htcl": variant} for variant in ("instance_wise", "share_parent", "none")),
    *({"hier_aggregator": name} for name in ("maa", "saa", "attention", "sage")),
    *({"hier_direction": name} for name in ("up", "down", "none")),
    *({"class_token_position": name} for name in ("middle", "front")),
    *({"intra_aggregator": name, "hier_aggregator": other} for name, other in product(INTRA, ("msa", "mlp"))),
    {"hier_aggregator": "mlp"},
    {"context_per_scale": False},
    *({"bag_loss": name} for name in ("focal", "svm")),
]


@pytest.mark.parametrize("options", ABLATIONS, ids=str)
def test_ablations_change_the_loss_and_train_all_their_parameters(tower: TextSide, options: dict[str, str]) -> None:
    bags = [bag_of(seed) for seed in range(6)]
    model, full = model_of(tower, **options), model_of(tower)
    losses = torch.stack([model(bag).loss for bag in bags])
    assert torch.isfinite(losses).all()
    assert not torch.allclose(losses, torch.stack([full(bag).loss for bag in bags]), atol=1e-7)
    losses.sum().backward()
    trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    assert [name for name, value in trained if value.grad is None or not value.grad.any()] == []


def test_scales_add_up_and_top_k_matters(tower: TextSide) -> None:
    bag = bag_of()
    with torch.no_grad():
        both, low, high = (model_of(tower, scales=scales)(bag).logits for scales in ("both", "low", "high"))
        other = model_of(tower, top_k_low=1, top_k_high=3)(bag).logits
    torch.testing.assert_close(low + high, both)
    assert not torch.allclose(low, high)
    assert not torch.allclose(other, both)


def logits(model: HiveMIL, bag: Bag) -> Tensor:
    with torch.no_grad():
        return model.eval()(bag).logits


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_order_of_patches_and_children_does_not_matter(tower: TextSide, variant: str) -> None:
    model, bag = model_of(tower, variant=variant), bag_of()
    parents = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    children = torch.stack([torch.randperm(5, generator=torch.Generator().manual_seed(p)) for p in range(9)])
    shuffled = replace(
        bag,
        low_features=bag.low_features[parents],
        high_features=bag.high_features.gather(1, children.unsqueeze(-1).expand(-1, -1, 16))[parents],
        child_mask=bag.child_mask.gather(1, children)[parents],
    )
    torch.testing.assert_close(logits(model, shuffled), logits(model, bag), rtol=1e-5, atol=1e-5)


def test_padding_does_not_matter(tower: TextSide) -> None:
    """More empty slots change nothing."""
    model, bag = model_of(tower), bag_of()
    padded = replace(
        bag,
        high_features=torch.cat([bag.high_features, torch.zeros(9, 3, 16)], dim=1),
        child_mask=torch.cat([bag.child_mask, torch.zeros(9, 3, dtype=torch.bool)], dim=1),
    )
    torch.testing.assert_close(logits(model, padded), logits(model, bag), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_class_order_does_not_matter(tower: TextSide, variant: str) -> None:
    """Classes given in another order give the same logits in that order."""
    order = [2, 0, 1]
    bag = bag_of()
    expected = logits(model_of(tower, variant=variant), bag)[order]
    torch.manual_seed(0)
    config = Config(num_low_mag_texts=2, num_high_mag_subtexts=2, variant=variant)
    low = [text for k in order for text in LOW[2 * k : 2 * k + 2]]
    high = [text for k in order for text in HIGH[4 * k : 4 * k + 4]]
    ours = logits(build_model(config, tower, low, high, 3), bag)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_gradients_of_the_whole_model() -> None:
    """gradcheck in float64 from texts and parameters to the loss, each along random directions: one number at a time
    takes half a minute. No similarity lies near a threshold."""
    torch.manual_seed(0)
    bag = random_bag(4, num_parents=4, num_children=3, dim=4, label=1)
    low, high = random_texts(4, num_subtexts=2, dim=4)
    texts = FixedTexts(low, high)
    head, loss = TopKLogits(2), build_bag_loss("ce", 2)
    network = BlockedNetwork([BlockedLayer(4) for _ in range(2)], head.choose)
    model = HiveMIL(texts, TextGuidedFiltering(0.5), network, head, loss, class_wise, 0.5).double()
    names = [name for name, _ in model.named_parameters()]

    def run(*values: Tensor) -> Tensor:
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (bag,)).loss

    values = [parameter.detach().clone().requires_grad_() for parameter in model.parameters()]
    for seed in range(3):
        torch.manual_seed(seed)
        assert torch.autograd.gradcheck(run, values, fast_mode=True)


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("tgdf", ["full", "none"])
def test_a_slide_stays_as_it_is(tower: TextSide, variant: str, tgdf: str) -> None:
    """With "none" every parent is retained: the graph holds all children."""
    model, bag = model_of(tower, variant=variant, tgdf=tgdf), bag_of()
    before = bag.map(torch.clone)
    with torch.no_grad():
        first, second = model(bag), model(bag)
    torch.testing.assert_close(second.logits, first.logits, rtol=0, atol=0)
    for name, value in bag.features().items():
        torch.testing.assert_close(value, before.features()[name], rtol=0, atol=0)


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("options", [{}, {"hier_aggregator": "sage"}, {"hier_direction": "none"}], ids=str)
def test_bf16_comes_close_to_full_precision(tower: TextSide, variant: str, options: dict[str, str]) -> None:
    """All images count, since which are the best may turn on the last bit."""
    model, bag = model_of(tower, variant=variant, top_k_low=9, **options), bag_of()
    expected = model(bag)
    expected.loss.backward()
    gradients = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(bag)
    output.loss.backward()
    torch.testing.assert_close(output.loss, expected.loss, rtol=0.05, atol=0.05)
    torch.testing.assert_close(output.embeddings.low_text, expected.embeddings.low_text, rtol=0, atol=0.1)
    ours = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    assert set(ours) == set(gradients)
    ours, gradients = (torch.cat([value.flatten() for value in values.values()]) for values in (ours, gradients))
    assert torch.cosine_similarity(ours, gradients, dim=0) > 0.8


def only_child(bag: Bag) -> Bag:
    mask = torch.zeros_like(bag.child_mask)
    mask[3, 2] = True
    return replace(bag, high_features=bag.high_features * 0 + mask.unsqueeze(-1), child_mask=mask)


EDGES = {
    "one patch": lambda: bag_of(num_parents=1),
    "one patch with children": lambda: replace(bag_of(num_parents=1), child_mask=torch.ones(1, 5, dtype=torch.bool)),
    "one child": lambda: only_child(bag_of()),
    "no child": lambda: bag_of(missing=1.1),
    "identical patches": lambda: replace(
        bag_of(), low_features=torch.ones(9, 16), high_features=torch.ones(9, 5, 16),
        child_mask=torch.ones(9, 5, dtype=torch.bool),
    ),
    "all zero": lambda: replace(bag_of(), low_features=torch.zeros(9, 16), high_features=torch.zeros(9, 5, 16)),
}  # fmt: skip


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("edge", EDGES)
def test_slides_on_the_edge(tower: TextSide, variant: str, edge: str) -> None:
    """Defined logits, loss and gradients."""
    model = model_of(tower, variant=variant)
    output = model(EDGES[edge]())
    assert output.loss is not None and output.embeddings is not None
    output.loss.backward()
    assert len(output.embeddings.retained) > 0
    assert torch.isfinite(output.logits).all() and torch.isfinite(output.loss)
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)


def test_an_unlabelled_slide_has_logits_and_no_loss(tower: TextSide) -> None:
    output = model_of(tower)(replace(bag_of(), label=-1))
    assert output.loss is None and output.losses == {} and output.logits.shape == (3,)


def test_the_loss_is_the_weighted_sum_of_its_terms(tower: TextSide) -> None:
    output = model_of(tower, contrastive_lambda=0.3)(bag_of())
    assert output.loss is not None
    torch.testing.assert_close(output.loss, output.losses["bag"] + 0.3 * output.losses["htcl"])
    expected = torch.nn.functional.cross_entropy(output.logits.unsqueeze(0), torch.tensor([1]))
    torch.testing.assert_close(output.losses["bag"], expected)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_options_without_effect_have_none(tower: TextSide, variant: str) -> None:
    """Each option said to have no effect gives the very same loss in training."""
    given = Config(variant=variant)
    others = {"mode": "x", "hier_direction": "none"}
    for name, told in OPTIONS.items():
        value, choices = getattr(given, name), told.choices
        other = choices[choices.index(value) - 1] if choices else not value if value in (True, False) else None
        others.setdefault(name, value + 1 if other is None and isinstance(value, int | float) else other)
    bag = bag_of()
    expected = model_of(tower, variant=variant).train()(bag).loss
    for name in options_without_effect(given):
        assert others[name] != getattr(given, name)
        torch.testing.assert_close(model_of(tower, variant=variant, **{name: others[name]}).train()(bag).loss, expected)


def test_checkpoint_of_the_paper_variant_holds_what_is_trained(tower: TextSide, tmp_path: Path) -> None:
    model, other = model_of(tower), model_of(tower)
    with torch.no_grad():
        for parameter in other.network.parameters():
            parameter.add_(1.0)
    saved = model.checkpoint()
    assert set(saved) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    torch.save(saved, tmp_path / "s_0_checkpoint.pt")
    assert not torch.allclose(logits(model, bag_of()), logits(other, bag_of()))
    other.load_checkpoint(torch.load(tmp_path / "s_0_checkpoint.pt", weights_only=True))
    torch.testing.assert_close(logits(model, bag_of()), logits(other, bag_of()), rtol=0, atol=0)
