"""The fast model against the slow one (benchmarks/oracle.py): logits, loss and every gradient, over random shapes."""

import random
from dataclasses import replace

import pytest
import torch

from benchmarks.oracle import Oracle
from models.build import build_model
from models.tiny_clip import save_tiny_clip
from models.vlms import TextSide, load_text_side
from tests.support.random_slide import random_bag
from utils.config import Config

WORDS = ("nests of cells", "clear cytoplasm", "keratin", "broad papillae with thin cores", "necrosis in the middle")


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> TextSide:
    folder = tmp_path_factory.mktemp("clip")
    save_tiny_clip(folder, width=16, seed=2)
    return load_text_side("tiny", str(folder))


def descriptions(number: int, seed: int) -> list[str]:
    """Texts of different lengths, some of which begin alike."""
    return [f"pattern {i % 3} : {' and '.join(WORDS[: 1 + (i * 7 + seed) % len(WORDS)])} {i}" for i in range(number)]


POSITIONS = {"paper": ["end", "middle", "front"], "released": ["end", "middle"]}


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("seed", range(25))
def test_logits_loss_and_gradients(tower: TextSide, variant: str, seed: int) -> None:
    draw = random.Random(seed)
    num_classes, num_low, num_subtexts = draw.randint(2, 3), draw.randint(1, 4), draw.randint(1, 3)
    config = Config(
        variant=variant, num_low_mag_texts=num_low, num_high_mag_subtexts=num_subtexts, num_context_tokens=5,
        class_specific_token=draw.random() < 0.5, class_token_position=draw.choice(POSITIONS[variant]),
    )  # fmt: skip
    torch.manual_seed(seed)
    low, high = descriptions(num_classes * num_low, seed), descriptions(num_classes * num_low * num_subtexts, seed + 1)
    model = build_model(config, tower, low, high, num_classes)
    missing = draw.choice([0.0, 0.1, 0.6])
    bag = random_bag(seed, draw.randint(12, 150), draw.randint(2, 16), 16, missing, label=seed % num_classes)
    bag = replace(bag, low_features=bag.low_features.float(), high_features=bag.high_features.float())
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}

    def gradients(loss: torch.Tensor) -> dict[str, torch.Tensor]:
        values = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
        return {name: value for name, value in zip(trained, values, strict=True) if value is not None}

    output = model(bag)
    assert output.loss is not None
    logits, loss = Oracle(model, is_released=variant == "released")(bag)
    torch.testing.assert_close(output.logits, logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(output.loss, loss, rtol=1e-4, atol=1e-5)
    ours, expected = gradients(output.loss), gradients(loss)
    assert set(ours) == set(expected)
    for name, value in expected.items():
        error = (ours[name] - value).norm() / value.norm().clamp(min=1e-3)
        assert error < 1e-4, f"{name}: {error}"
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(bag).logits, logits, rtol=1e-4, atol=1e-4)
