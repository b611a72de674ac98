"""Slides at the edge of what occurs: a single patch, no children, nothing but one colour, half precision, huge ones."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import SimulatedTask
from utils.interface import Bag

WIDTH, CHILDREN = 16, 16
SPLIT = {"train": ["SIM-0000", "SIM-0001", "SIM-1000", "SIM-1001"], "val": ["SIM-0002", "SIM-1002"]}
SPLIT["test"] = ["SIM-0003", "SIM-1003"]
Arrays = dict[str, np.ndarray]


def ordinary(generator: np.random.Generator, number: int, num_parents: int = 6) -> Arrays:
    """A slide of random features with a few children missing."""
    mask = generator.random((num_parents, CHILDREN)) < 0.8
    return {
        "low": generator.normal(size=(num_parents, WIDTH)).astype(np.float32),
        "high": generator.normal(size=(num_parents, CHILDREN, WIDTH)).astype(np.float32) * mask[..., None],
        "mask": mask,
    }


def one_patch(generator: np.random.Generator, number: int) -> Arrays:
    return ordinary(generator, number, 1)


def one_patch_without_children(generator: np.random.Generator, number: int) -> Arrays:
    return with_mask(ordinary(generator, number, 1), np.zeros((1, CHILDREN), dtype=bool))


def one_child_slot(generator: np.random.Generator, number: int) -> Arrays:
    slide = ordinary(generator, number)
    return with_mask({name: values if name == "low" else values[:, :1] for name, values in slide.items()}, True)


def one_real_child(generator: np.random.Generator, number: int) -> Arrays:
    mask = np.zeros((6, CHILDREN), dtype=bool)
    mask[number % 6, number % CHILDREN] = True
    return with_mask(ordinary(generator, number), mask)


def no_child(generator: np.random.Generator, number: int) -> Arrays:
    return with_mask(ordinary(generator, number), np.zeros((6, CHILDREN), dtype=bool))


def identical(generator: np.random.Generator, number: int) -> Arrays:
    slide = with_mask(ordinary(generator, number), True)
    slide["low"][:], slide["high"][:] = generator.normal(size=(2, WIDTH))
    return slide


def all_zero(generator: np.random.Generator, number: int) -> Arrays:
    slide = with_mask(ordinary(generator, number), True)
    slide["low"][:], slide["high"][:] = 0, 0
    return slide


def half_precision(generator: np.random.Generator, number: int) -> Arrays:
    slide = ordinary(generator, number)
    return {name: values if name == "mask" else values.astype(np.float16) for name, values in slide.items()}


def half_precision_as_single(generator: np.random.Generator, number: int) -> Arrays:
    slide = half_precision(generator, number)
    return {name: values if name == "mask" else values.astype(np.float32) for name, values in slide.items()}


def mixed_sizes(generator: np.random.Generator, number: int) -> Arrays:
    return ordinary(generator, number, (1, 2, 3, 150, 40)[number % 5])


def with_mask(slide: Arrays, mask: np.ndarray | bool) -> Arrays:
    mask = np.broadcast_to(mask, slide["mask"].shape)
    full = np.random.default_rng(9).normal(size=slide["high"].shape).astype(np.float32)
    return {"low": slide["low"], "high": full * mask[..., None], "mask": mask}


KINDS = [
    one_patch, one_patch_without_children, one_child_slot, one_real_child, no_child, identical, all_zero,
    half_precision, mixed_sizes,
]  # fmt: skip


def write_features(root: Path, kind: Callable[[np.random.Generator, int], Arrays], slide_ids: list[str]) -> None:
    """Features of the simulated task's slides, each drawn anew."""
    generator = np.random.default_rng(0)
    for number, slide_id in enumerate(slide_ids):
        slide = kind(generator, number)
        files = {"tinyclip_5x": {"features": slide["low"]}}
        files["hierarchical_tinyclip_5x_20x"] = {"features": slide["high"], "mask": slide["mask"]}
        for folder, arrays in files.items():
            file = root / "simulated_tinyclip" / folder / f"{slide_id}.h5"
            file.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(file, "w") as opened:
                opened["coords"] = np.zeros((*arrays["features"].shape[:-1], 2), dtype=np.int64)
                for name, values in arrays.items():
                    opened[name] = values


@pytest.fixture
def trained(simulated: SimulatedTask, tmp_path: Path, run_main: Callable[..., tuple[int, str, str]]) -> Callable:
    """Train fold 0 for one epoch on slides of one kind: -> the run's folder."""

    def train(kind: Callable[[np.random.Generator, int], Arrays], variant: str) -> Path:
        features, results = tmp_path / "features" / kind.__name__, tmp_path / "results" / kind.__name__
        write_features(features, kind, [slide_id for part in SPLIT.values() for slide_id in part])
        pd.DataFrame({name: pd.Series(part) for name, part in SPLIT.items()}).to_csv(tmp_path / "splits_0.csv")
        folders = ("--data_root_dir", str(features), "--split_dir", str(tmp_path))
        options = ("--max_epochs", "1", "--k_end", "1", "--variant", variant)
        code, out, err = run_main(simulated.options(results, *folders, *options))
        assert (code, err) == (0, ""), out
        return simulated.run_folder(results)

    return train


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_training_and_testing_on_such_slides(trained: Callable, kind: Callable, variant: str) -> None:
    folder = trained(kind, variant)
    predictions = pd.read_csv(folder / "predictions_0.csv")
    assert predictions["slide_id"].tolist() == SPLIT["val"] + SPLIT["test"]
    probabilities = predictions[["prob_SIMULATED_A", "prob_SIMULATED_B"]].to_numpy()
    assert np.isfinite(probabilities).all()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert probabilities.sum(1) == pytest.approx(1, abs=1e-9)
    history = pd.read_csv(folder / "history_0.csv")
    assert np.isfinite(history.filter(like="loss").to_numpy()).all()
    checkpoint = torch.load(folder / "s_0_checkpoint.pt", weights_only=True)
    assert all(torch.isfinite(values).all() for values in checkpoint.values())


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_half_precision_files_train_as_their_values_in_single_precision(trained: Callable, variant: str) -> None:
    half, single = (trained(kind, variant) for kind in (half_precision, half_precision_as_single))
    for name in ("predictions_0.csv", "history_0.csv"):
        assert (half / name).read_bytes() == (single / name).read_bytes()


# ---- without training ------------------------------------------------------------------------------------------------


@pytest.fixture
def model_of(simulated: SimulatedTask) -> Callable:
    """Build a model of the simulated task; its two classes, four low and twelve high texts each."""
    from datasets.descriptions import read_descriptions
    from models.build import build_model
    from models.vlms import load_text_side
    from utils.config import Config

    texts = read_descriptions(simulated.root / "simulated.json", None, 4, 3)
    tower = load_text_side("tinyclip", str(simulated.root / "tinyclip"))

    def build(**options: str | float) -> torch.nn.Module:
        torch.manual_seed(0)
        return build_model(Config(**options), tower, texts.low_texts, texts.high_texts, 2).eval()

    return build


def bag_of(slide: Arrays) -> Bag:
    return Bag("s", *(torch.from_numpy(np.array(slide[name])) for name in ("low", "high", "mask")), label=1)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_where_no_patch_reaches_the_threshold_every_text_keeps_its_best(model_of: Callable, variant: str) -> None:
    slide = ordinary(np.random.default_rng(5), 0)
    model = model_of(variant=variant, filter_alpha=1000.0)
    with torch.no_grad():
        graph, output = model.graph(bag_of(slide)), model(bag_of(slide))
    images = graph.low_image
    if variant == "paper":
        images = torch.nn.functional.normalize(images, dim=-1)  # the released code compares raw dot products
    best = (images @ graph.low_text.t()).argmax(0)
    assert graph.keep_low.sum(0).tolist() == [1] * len(best)
    assert torch.equal(graph.keep_low.int().argmax(0), best)
    assert graph.retained.tolist() == sorted(set(best.tolist()))
    assert torch.isfinite(output.logits).all()


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_many_identical_patches_count_as_one(model_of: Callable, variant: str) -> None:
    slide = identical(np.random.default_rng(1), 0)
    first = {name: values[:1] for name, values in slide.items()}
    model = model_of(variant=variant)
    with torch.no_grad():
        many, one = model(bag_of(slide)), model(bag_of(first))
    assert torch.allclose(many.logits, one.logits, atol=1e-5)
    other = bag_of({**first, "low": -first["low"]})
    with torch.no_grad():
        assert not torch.allclose(model(other).logits, one.logits, atol=1e-3)


def test_a_slide_without_children_is_judged_by_its_low_patches_alone(model_of: Callable) -> None:
    bag = bag_of(no_child(np.random.default_rng(2), 0))
    with torch.no_grad():
        both, low, high = (model_of(scales=scales)(bag).logits for scales in ("both", "low", "high"))
    assert torch.equal(both, low)
    assert torch.equal(high, torch.zeros(2))


def test_a_slide_of_ten_thousand_parents(model_of: Callable) -> None:
    """160 000 children. The released variant attends over all pairs of the two scales, so it has no place here."""
    slide = ordinary(np.random.default_rng(3), 0, 10_000)
    slide["low"][:2500] = slide["low"][0]  # some tissue is all alike
    model = model_of(variant="paper")
    order = np.random.default_rng(4).permutation(10_000)
    shuffled = {name: values[order] for name, values in slide.items()}
    with torch.no_grad():
        output, again = model(bag_of(slide)), model(bag_of(shuffled))
    assert torch.isfinite(output.logits).all()
    assert output.logits.softmax(0).sum() == pytest.approx(1, abs=1e-6)
    assert output.embeddings.low_image.shape == (10_000, WIDTH)
    assert 0 < len(output.embeddings.retained) < 10_000
    assert torch.allclose(output.logits, again.logits, atol=1e-4)
    assert torch.isfinite(output.loss)
