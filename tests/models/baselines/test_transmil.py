"""TransMIL against its official code, a loop-wise twin in numpy, and on bags that need care."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.baselines.transmil import KIND, TransMIL
from models.kind import Inputs
from models.losses import build_bag_loss
from tests.support.baseline_behaviour import gradient_norms
from tests.support.baseline_case import BaselineCase, bag_of
from utils.config import Config

NAMES = {
    "_fc1": "embed",
    "cls_token": "class_token",
    "layer1.norm": "layer1.norm",
    "layer1.attn": "layer1.attention",
    "pos_layer.proj": "position.convolve.0",
    "pos_layer.proj1": "position.convolve.1",
    "pos_layer.proj2": "position.convolve.2",
    "layer2.norm": "layer2.norm",
    "layer2.attn": "layer2.attention",
    "norm": "norm",
    "_fc2": "classify",
}
STAGES = "embedded_patches", "after_layer1", "after_position_encoding", "after_layer2"


def test_golden(golden_baselines: Path) -> None:
    case = BaselineCase(golden_baselines / "TransMIL", NAMES)
    sizes = case.settings
    model = TransMIL(
        sizes["feature_dim"], case.num_classes, build_bag_loss("ce", case.num_classes), embedding=sizes["embed_dim"],
        heads=sizes["heads"], landmarks=sizes["landmarks"], iterations=sizes["pinv_iterations"],
        kernel=sizes["residual_conv_kernel"],
    )  # fmt: skip
    bags = case.bags()
    case.load(model)
    for i, bag in enumerate(bags):
        output = model(bag)
        case.check(f"bag{i}.logits", output.logits)
        case.check(f"bag{i}.probabilities", output.logits.softmax(0))
        case.check(f"bag{i}.prediction", output.logits.argmax())
        case.check(f"bag{i}.loss", output.loss)
        for name in STAGES:
            case.check(f"bag{i}.{name}", output.details[name])
    case.check_gradients(model, model(bags[0]).loss)
    case.check_trace(model, bags)
    assert case.unchecked() == {f"bag{i}.nystrom_0_0_9.logits" for i in range(len(bags))}  # of the pinned release


def build(num_classes: int = 3, heads: int = 2, landmarks: int = 6) -> TransMIL:
    torch.manual_seed(0)
    loss = build_bag_loss("ce", num_classes)
    model = TransMIL(7, num_classes, loss, embedding=12, heads=heads, landmarks=landmarks, iterations=5, kernel=5)
    with torch.no_grad():  # scores large enough to matter
        for layer in (model.layer1, model.layer2):
            layer.attention.to_qkv.weight *= 3
    return model.eval()


class ByHand:
    """TransMIL in numpy, head by head, row by row and tap by tap."""

    def __init__(self, model: TransMIL, heads: int, landmarks: int, iterations: int):
        self.weight = {name: value.double().numpy() for name, value in model.state_dict().items()}
        self.heads, self.landmarks, self.iterations = heads, landmarks, iterations

    def norm(self, name: str, row: np.ndarray) -> np.ndarray:
        scaled = (row - row.mean()) / np.sqrt(row.var() + 1e-5)
        return scaled * self.weight[f"{name}.weight"] + self.weight[f"{name}.bias"]

    def attend(self, layer: str, tokens: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The tokens behind the layer, and the first one's weights in each head."""
        normed = [self.norm(f"{layer}.norm", token) for token in tokens]
        while len(normed) % self.landmarks:
            normed.insert(0, np.zeros(len(tokens[0])))
        padding, run, dim = len(normed) - len(tokens), len(normed) // self.landmarks, len(tokens[0])
        width = dim // self.heads
        query, key, value = (
            np.array([self.weight[f"{layer}.attention.to_qkv.weight"][part * dim :][:dim] @ row for row in normed])
            for part in range(3)
        )
        scores = []
        for head in range(self.heads):
            columns = slice(head * width, (head + 1) * width)
            q, k = query[:, columns] / np.sqrt(width), key[:, columns]
            ql, kl = (
                np.array([sum(rows[i * run + r] for r in range(run)) / run for i in range(self.landmarks)])
                for rows in (q, k)
            )
            scores.append([softmax_rows(a @ b.T) for a, b in ((q, kl), (ql, kl), (ql, k))])
        largest_row = max(row.sum() for _, between, _ in scores for row in between)
        largest_column = max(column.sum() for _, between, _ in scores for column in between.T)
        merged, of_first = np.zeros((len(normed), dim)), []
        for head, (to_landmarks, between, from_landmarks) in enumerate(scores):
            columns = slice(head * width, (head + 1) * width)
            inverse, one = between.T / (largest_row * largest_column), np.eye(self.landmarks)
            for _ in range(self.iterations):
                product = between @ inverse
                inverse = inverse @ (13 * one - product @ (15 * one - product @ (7 * one - product))) / 4
            every = to_landmarks @ inverse @ from_landmarks
            of_first.append(every[padding, padding:])
            merged[:, columns] = every @ value[:, columns]
            taps = self.weight[f"{layer}.attention.res_conv.weight"][head, 0, :, 0]
            for i in range(len(normed)):
                for tap, factor in enumerate(taps):
                    source = i + tap - len(taps) // 2
                    if 0 <= source < len(normed):
                        merged[i, columns] += factor * value[source, columns]
        out = f"{layer}.attention.to_out.0"
        rows = [self.weight[f"{out}.weight"] @ row + self.weight[f"{out}.bias"] for row in merged[padding:]]
        return [token + row for token, row in zip(tokens, rows, strict=True)], of_first

    def place(self, patches: list[np.ndarray], side: int) -> list[np.ndarray]:
        """The position encoding."""
        found = []
        for row in range(side):
            for column in range(side):
                total = patches[row * side + column].copy()
                for number, size in enumerate((7, 5, 3)):
                    kernel = self.weight[f"position.convolve.{number}.weight"][:, 0]
                    total += self.weight[f"position.convolve.{number}.bias"]
                    for i in range(size):
                        for j in range(size):
                            y, x = row + i - size // 2, column + j - size // 2
                            if 0 <= y < side and 0 <= x < side:
                                total += kernel[:, i, j] * patches[y * side + x]
                found.append(total)
        return found

    def __call__(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits (K,), and the class token's attention (heads, N)."""
        patches = [
            np.maximum(self.weight["embed.0.weight"] @ row + self.weight["embed.0.bias"], 0) for row in features
        ]  # fmt: skip
        side = next(s for s in range(1, 100) if s * s >= len(patches))
        squared = (patches + patches)[: side * side]
        tokens, _ = self.attend("layer1", [self.weight["class_token"][0], *squared])
        tokens, of_first = self.attend("layer2", [tokens[0], *self.place(tokens[1:], side)])
        attention = np.zeros((self.heads, len(patches)))
        for head, weights in enumerate(of_first):
            for i in range(side * side):
                attention[head, i % len(patches)] += weights[1 + i]
        slide = self.norm("norm", tokens[0])
        return self.weight["classify.weight"] @ slide + self.weight["classify.bias"], attention


def softmax_rows(scores: np.ndarray) -> np.ndarray:
    return np.array([np.exp(row) / np.exp(row).sum() for row in scores])


@pytest.mark.parametrize(("heads", "landmarks"), [(2, 6), (3, 4), (1, 10)])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9, 10, 35])  # 9 with the class token fills 10 landmarks, 35 fills 4
def test_token_by_token(size: int, heads: int, landmarks: int) -> None:
    model = build(3, heads, landmarks)
    patches = torch.randn(size, 7)
    output = model(bag_of(patches, 2))
    logits, attention = ByHand(model, heads, landmarks, iterations=5)(patches.double().numpy())
    assert output.logits.tolist() == pytest.approx(logits.tolist(), abs=1e-5)
    np.testing.assert_allclose(output.details["attention"], attention, atol=1e-5)
    assert output.loss.item() == pytest.approx(-np.log(softmax_rows(logits[None])[0, 2]), abs=1e-5)


@pytest.mark.parametrize("size", [1, 2, 30])
def test_every_parameter_gets_a_finite_gradient(size: int) -> None:
    norms = gradient_norms(build(), bag_of(3 * torch.randn(size, 7), 1))
    if size == 30:
        assert {name for name, norm in norms.items() if norm < 1e-6} == set()


@pytest.mark.parametrize("size", [1, 300])
def test_full_size(size: int) -> None:
    """A bag below and one above the 256 landmarks; nothing is random in evaluation."""
    torch.manual_seed(0)
    model = KIND.build(Config(), Inputs(2, 16)).eval()
    bag = bag_of(torch.randn(size, 16), -1)
    with torch.no_grad():
        output, again = model(bag), model(bag)
    assert output.loss is None and output.losses == {}
    assert torch.isfinite(output.logits).all() and torch.equal(output.logits, again.logits)
    assert output.details["attention"].shape == (8, size)


def test_options() -> None:
    model = KIND.build(Config(drop_out=True, bag_loss="svm"), Inputs(3, 20))
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert shapes["embed.0.weight"] == (512, 20) and shapes["layer2.attention.res_conv.weight"] == (8, 1, 33, 1)
    attention = model.layer1.attention
    assert (attention.num_landmarks, attention.pinv_iterations, attention.scale) == (256, 6, 64**-0.5)
    assert [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)] == [0.1, 0.1]
    logits, labels = torch.tensor([[0.5, 2.0, 1.0]]), torch.tensor([0])
    assert model.bag_loss(logits, labels) == build_bag_loss("svm", 3)(logits, labels)
    assert not any(m.p for m in KIND.build(Config(), Inputs(3, 20)).modules() if isinstance(m, torch.nn.Dropout))
