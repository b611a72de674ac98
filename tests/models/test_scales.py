"""The two scales of HiVE-MIL: a context for each, one alone, and the share of pairs that are filtered at each."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.build import build_model
from models.hive_mil import HiveMIL
from models.tiny_clip import save_tiny_clip
from models.vlms import TextSide, load_text_side
from tests.support.random_slide import random_bag
from utils.config import Config
from utils.interface import Bag

LOW = [f"pattern {number}" for number in range(6)]
HIGH = [f"detail {number}" for number in range(12)]


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> TextSide:
    folder: Path = tmp_path_factory.mktemp("clip")
    save_tiny_clip(folder, width=16)
    return load_text_side("tiny", str(folder))


def model_of(tower: TextSide, **options: object) -> HiveMIL:
    torch.manual_seed(0)
    return build_model(Config(num_low_mag_texts=2, num_high_mag_subtexts=2, **options), tower, LOW, HIGH, 3)


def bag_of() -> Bag:
    bag = random_bag(0, 9, 5, 16, missing=0.3, label=1)
    return replace(bag, low_features=bag.low_features.float(), high_features=bag.high_features.float())


def logits(model: HiveMIL, bag: Bag) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(bag).logits
    return found


def test_a_context_of_both_scales_serves_as_that_of_each(tower: TextSide) -> None:
    """A checkpoint of an earlier version predicts what it did."""
    earlier, now = model_of(tower, context_per_scale=False), model_of(tower)
    now.load_checkpoint(earlier.checkpoint())
    assert torch.equal(logits(now, bag_of()), logits(earlier, bag_of()))
    with pytest.raises(ValueError, match="missing"):
        earlier.load_checkpoint(now.checkpoint())


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_filtered_pairs_are_counted_over_all_pairs(tower: TextSide, variant: str) -> None:
    """Children of parents that are not retained count, and of the released variant every slot is a child."""
    model, bag = model_of(tower, variant=variant).eval(), bag_of()
    graph = model.graph(bag)
    kept = {(int(graph.retained[r]), c, s) for r, c, s in graph.keep_high.nonzero().tolist()}
    slots = [(p, c) for p in range(9) for c in range(5) if variant == "released" or bag.child_mask[p, c]]
    high = [(p, c, s) in kept for p, c in slots for s in range(len(HIGH))]
    low = [bool(graph.keep_low[p, t]) for p in range(9) for t in range(len(LOW))]
    assert len(graph.retained) < 9
    with torch.no_grad():
        found = model(bag).filtered
    assert found.tolist() == pytest.approx([1 - sum(low) / len(low), 1 - sum(high) / len(high)])


@pytest.mark.parametrize(("scale", "absent"), [("low", 1), ("high", 0)])
def test_one_scale_alone_does_not_see_the_other(tower: TextSide, scale: str, absent: int) -> None:
    model, bag = model_of(tower, instances=scale).eval(), bag_of()
    name = "high_features" if scale == "low" else "low_features"
    other = replace(bag, **{name: getattr(bag, name) * -3})
    assert torch.equal(logits(model, bag), logits(model, other))
    with torch.no_grad():
        output = model(bag)
    assert not output.has_hierarchy() and output.filtered.isnan().tolist() == [index == absent for index in range(2)]
    model.train()
    found = model(bag)
    assert set(found.losses) == {"bag"}
