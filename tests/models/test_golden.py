"""The released variant against what the released code returned (../shared/golden)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.golden_case import GoldenCase

CASES = ("visible_2class", "visible_conch")


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, golden: Path, monkeypatch: pytest.MonkeyPatch) -> GoldenCase:
    return GoldenCase(golden / request.param, monkeypatch)


def test_the_checkpoint_is_loaded_strictly_and_written_back_unchanged(case: GoldenCase) -> None:
    saved = case.model().checkpoint()
    assert set(saved) == set(case.checkpoint)
    assert all(torch.equal(saved[name], case.checkpoint[name]) for name in saved)
    incomplete = {name: value for name, value in case.checkpoint.items() if "layer2.attn.mha" not in name}
    with pytest.raises(ValueError, match="4 tensors are missing"):
        case.model().load_checkpoint(incomplete)
    with pytest.raises(ValueError, match=r"1 tensors are unknown \(surplus\)"):
        case.model().load_checkpoint({**case.checkpoint, "surplus": torch.zeros(1)})


def test_text_features(case: GoldenCase) -> None:
    with torch.no_grad():
        low, high = case.model().prompts()
    num_classes = len(case.class_names)
    ours = torch.cat([low.view(num_classes, -1, low.shape[-1]), high.view(num_classes, -1, high.shape[-1])], dim=1)
    expected = np.load(case.folder / "text_features.npz")["text_features"]
    np.testing.assert_allclose(ours.flatten(0, 1).numpy(), expected, rtol=0, atol=1e-5)


def test_slides(case: GoldenCase) -> None:
    model = case.model()
    for bag in case.bags():
        expected = case.expected["slides"][bag.slide_id]
        with torch.no_grad():
            output = model(bag)
        assert output.loss is not None and output.embeddings is not None
        assert len(bag.low_features) == expected["n5"]
        assert len(output.embeddings.retained) == expected["retained_5x"]
        np.testing.assert_allclose(output.logits.numpy(), expected["logits"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(output.logits.softmax(0).numpy(), expected["prob"], rtol=0, atol=1e-5)
        assert float(output.loss) == pytest.approx(expected["loss"], abs=1e-5)
        assert float(output.losses["htcl"]) == pytest.approx(expected["htcl"], abs=1e-5)


def test_training_trace(case: GoldenCase) -> None:
    model = case.model().train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, weight_decay=1e-5)
    bags = case.bags()
    losses = []
    for _ in range(3):
        for bag in bags:
            loss = model(bag).loss
            assert loss is not None
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    np.testing.assert_allclose(losses, case.expected["training"]["losses"], rtol=0, atol=1e-3)
    model.eval()
    for bag in bags:
        with torch.no_grad():
            probabilities = model(bag).logits.softmax(0).numpy()
        np.testing.assert_allclose(probabilities, case.expected["after_training"][bag.slide_id], rtol=0, atol=1e-3)


def test_gradients_of_the_context(case: GoldenCase) -> None:
    """The released CLIP path gives its context a gradient of exactly zero; the tower gets none at all."""
    model = case.model().train()
    output = model(case.bags()[0])
    output.loss.backward()
    gradient = model.prompts.context_tokens.grad
    assert gradient is not None
    assert bool(gradient.abs().max() > 0) == case.is_conch
    assert all(parameter.grad is None for parameter in case.tower.parameters())
    unused = [name for name, parameter in model.network.named_parameters() if parameter.grad is None]
    assert unused and all("unused_self" in name for name in unused)


@pytest.mark.parametrize("num_parents", [1, 2, 7])
def test_slides_on_which_the_released_code_crashes(case: GoldenCase, num_parents: int) -> None:
    """One patch, or identical patches, give a finite result."""
    from dataclasses import replace

    bag = case.bags()[0]
    same = replace(
        bag,
        low_features=bag.low_features[:1].expand(num_parents, -1),
        high_features=bag.high_features[:1].expand(num_parents, -1, -1),
        child_mask=bag.child_mask[:1].expand(num_parents, -1),
    )
    output = case.model()(same)
    assert output.embeddings is not None and len(output.embeddings.retained) > 0
    assert bool(torch.isfinite(output.logits).all()) and bool(torch.isfinite(output.loss))
