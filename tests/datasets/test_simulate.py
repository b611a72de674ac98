"""The simulated task: reproducible, geometrically sound, and with the patterns planted that its files tell of."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from datasets.simulate import SimulationSettings, SlideSimulator, simulated_descriptions
from tests.conftest import SimulatedTask
from tests.support.h5_files import arrays_of

LOW, HIGH, HIERARCHICAL = "tinyclip_5x", "tinyclip_20x", "hierarchical_tinyclip_5x_20x"
NUM_LOW, NUM_SUBTEXTS, CHILDREN = 4, 3, 16


def slides_of(task: SimulatedTask) -> list[dict[str, dict[str, np.ndarray]]]:
    """For every slide the contents of its files, by folder; ``label`` from its name."""
    names = sorted(file.name for file in (task.features / LOW).iterdir())
    return [
        {folder: arrays_of(task.features / folder / name) for folder in (LOW, HIGH, HIERARCHICAL, "planted")}
        | {"label": int(name[4])}
        for name in names
    ]


# ---- files -----------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    run_main: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    made = {}
    size = ["--classes", "3", "--slides-per-class", "5", "--shots", "1", "--width", "8", "--max-parents", "6"]
    for name, seed in (("first", 3), ("second", 3), ("other", 4)):
        options = ["--output-dir", str(tmp_path / name), "--seed", str(seed), "--min-parents", "4", *size]
        assert run_main(options, "create_simulated_task")[0] == 0
        files = [file for file in (tmp_path / name).rglob("*") if file.is_file()]
        made[name] = {str(file.relative_to(tmp_path / name)): file.read_bytes() for file in files}
    assert made["first"] == made["second"]
    assert made["first"].keys() == made["other"].keys()
    assert len(made["first"]) == 4 * 15 + 2 + 2 + 2  # features and what was planted, CLIP, folds, CSV and JSON
    same = {name for name, content in made["first"].items() if content == made["other"][name]}
    assert same == {"simulated.csv", "simulated.json", "tinyclip/config.json"}


def test_too_few_slides_for_the_splits(run_main: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    options = ["--output-dir", str(tmp_path / "task"), "--slides-per-class", "7", "--shots", "4", "2"]
    code, _, message = run_main(options, "create_simulated_task")
    assert code == 2
    assert "--slides-per-class 7: " in message and "expected at least 8" in message
    assert not (tmp_path / "task").exists()


def test_files_tell_how_they_were_made(simulated: SimulatedTask) -> None:
    expected = {
        LOW: {"magnification": 5, "patch_size_level0": 2048},
        HIGH: {"magnification": 20, "patch_size_level0": 512},
        HIERARCHICAL: {"low_magnification": 5, "high_magnification": 20, "patch_size_level0": 512},
    }
    shared = {"simulated": True, "encoder": "tinyclip", "projected": True, "normalised": False, "seed": 1}
    for folder, attributes in expected.items():
        with h5py.File(simulated.features / folder / "SIM-0000.h5") as file:
            assert {name: file.attrs[name] for name in (*shared, *attributes)} == {**shared, **attributes}
            assert file.attrs["version"]


def test_splits_have_the_shots_and_use_every_slide_once(simulated: SimulatedTask) -> None:
    labels = pd.read_csv(simulated.root / "simulated.csv").set_index("slide_id")["label"]
    trained = []
    for fold in range(2):
        table = pd.read_csv(simulated.split_dir / f"splits_{fold}.csv", index_col=0)
        parts = {name: table[name].dropna().tolist() for name in ("train", "val", "test")}
        assert sorted(slide_id for part in parts.values() for slide_id in part) == sorted(labels.index)
        counts = [set(labels[part].value_counts()) for part in parts.values()]
        assert counts == [{simulated.shots}, {2}, {4}]
        trained.append(set(parts["train"]))
    assert trained[0] != trained[1]


def test_descriptions_are_all_different() -> None:
    by_class = simulated_descriptions([f"C{number}" for number in range(8)])
    texts = [f"{term} : {text}" for entries in by_class.values() for term, text in entries.items()]
    assert len(texts) == len(set(texts)) == 8 * 16


# ---- geometry --------------------------------------------------------------------------------------------------------


def test_children_lie_inside_their_parents_and_fill_them(simulated: SimulatedTask) -> None:
    for slide in slides_of(simulated):
        low, high, mask = slide[LOW]["coords"], slide[HIERARCHICAL]["coords"], slide[HIERARCHICAL]["mask"]
        offset = high - low[:, None]
        assert ((offset >= 0) & (offset + 512 <= 2048))[mask].all()
        assert (offset % 512 == 0)[mask].all()
        for parent in range(len(low)):
            places = offset[parent][mask[parent]]
            assert len(np.unique(places, axis=0)) == len(places)  # 16 different places fill a parent


def test_parents_lie_side_by_side_in_one_piece(simulated: SimulatedTask) -> None:
    for slide in slides_of(simulated):
        cells = {tuple(cell) for cell in (slide[LOW]["coords"] / 2048).tolist()}
        assert len(cells) == len(slide[LOW]["coords"])
        assert all(x == int(x) and y == int(y) for x, y in cells)
        touching = [any((x + i, y + j) in cells for i, j in ((0, 1), (1, 0), (0, -1), (-1, 0))) for x, y in cells]
        assert sum(touching) >= 0.7 * len(cells)


def test_missing_and_childless_patches_occur_and_are_zero(simulated: SimulatedTask) -> None:
    masks = [slide[HIERARCHICAL]["mask"] for slide in slides_of(simulated)]
    counts = np.concatenate([mask.sum(1) for mask in masks])
    assert (counts == 0).sum() >= 2
    assert (counts == CHILDREN).sum() >= 2
    assert 0.05 < 1 - counts[counts > 0].mean() / CHILDREN < 0.15
    for slide in slides_of(simulated):
        children = slide[HIERARCHICAL]
        assert not children["features"][~children["mask"]].any()
        assert not children["coords"][~children["mask"]].any()
        assert np.linalg.norm(children["features"][children["mask"]], axis=-1) == pytest.approx(10, rel=1e-4)
        assert np.array_equal(slide[HIGH]["features"], children["features"][children["mask"]])
        assert np.array_equal(slide[HIGH]["coords"], children["coords"][children["mask"]])


# ---- what is planted -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text_features(simulated: SimulatedTask) -> tuple[np.ndarray, np.ndarray]:
    """Low (K*O, D) and high (K*O*S, D) text features of the simulated task, of unit length."""
    from datasets.descriptions import read_descriptions
    from models.prompts import PromptLearner
    from models.vlms import load_text_side

    texts = read_descriptions(simulated.root / "simulated.json", None, NUM_LOW, NUM_SUBTEXTS)
    torch.manual_seed(1)
    prompts = PromptLearner(
        load_text_side("tinyclip", str(simulated.root / "tinyclip")), texts.low_texts, texts.high_texts, 2
    )
    with torch.no_grad():
        low, high = (torch.nn.functional.normalize(features, dim=-1).numpy() for features in prompts())
    return low, high


def cosines(slides: list[dict], folder: str, planted: str, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of planted patches with their text; and of the background with every text, texts side by side."""
    own, background = [], []
    for slide in slides:
        index = slide["planted"][planted]
        features = slide[folder]["features"] / 10
        own.append((features * texts[index]).sum(-1)[index >= 0])
        background.append(features[(index < 0) & features.any(-1)] @ texts.T)
    return np.concatenate(own), np.concatenate(background)


@pytest.mark.parametrize(("folder", "scale"), [(LOW, "low"), (HIERARCHICAL, "high")])
def test_planted_patches_resemble_their_text_and_the_background_does_not(
    simulated: SimulatedTask, text_features: tuple[np.ndarray, np.ndarray], folder: str, scale: str
) -> None:
    own, background = cosines(slides_of(simulated), folder, scale, text_features[scale == "high"])
    assert len(own) >= 28
    assert own.mean() > 0.7
    assert abs(background.mean()) < 0.2
    assert own.min() > np.quantile(background, 0.99)


def test_the_planted_files_agree_with_the_labels_and_with_each_other(simulated: SimulatedTask) -> None:
    planted_children = real_children = 0
    for slide in slides_of(simulated):
        low, high, mask = slide["planted"]["low"], slide["planted"]["high"], slide[HIERARCHICAL]["mask"]
        is_planted = low >= 0
        assert (low[is_planted] // NUM_LOW == slide["label"]).all()  # slides are too small for confounders
        assert is_planted.sum() == max(1, round(0.2 * len(low)))
        assert not (high[~is_planted] >= 0).any()
        assert not (high[~mask] >= 0).any()
        parent_text = np.broadcast_to(low[:, None], high.shape)
        assert (high // NUM_SUBTEXTS == parent_text)[high >= 0].all()
        planted_children += (high >= 0).sum()
        real_children += mask[is_planted].sum()
    assert 0.4 < planted_children / real_children < 0.6


def make_simulator(num_classes: int = 3, **settings: float) -> SlideSimulator:
    """Texts that stand at right angles to each other."""
    directions = np.eye(num_classes * NUM_LOW * (1 + NUM_SUBTEXTS))
    low = directions[: num_classes * NUM_LOW].reshape(num_classes, NUM_LOW, -1)
    high = directions[num_classes * NUM_LOW :].reshape(num_classes, NUM_LOW, NUM_SUBTEXTS, -1)
    return SlideSimulator(low, high, SimulationSettings(**settings))  # type: ignore[arg-type]


def test_confounders_are_patterns_of_other_classes() -> None:
    simulator = make_simulator(min_parents=100, max_parents=200)
    generator = np.random.default_rng(0)
    confounders: Counter[int] = Counter()
    for _ in range(20):
        slide = simulator.draw(generator, label=1)
        classes = slide["planted_low"][slide["planted_low"] >= 0] // NUM_LOW
        num_parents = len(slide["mask"])
        assert (classes == 1).sum() == round(0.2 * num_parents)
        assert (classes != 1).sum() == round(0.02 * num_parents)
        confounders.update(classes[classes != 1].tolist())
    assert set(confounders) == {0, 2}
    others = np.unique(np.concatenate([simulator.draw(generator, 1)["planted_low"] for _ in range(20)]))
    assert others.tolist() == [-1, *range(3 * NUM_LOW)]  # every low text of every class


def test_confounders_look_like_the_text_of_their_class() -> None:
    simulator = make_simulator(min_parents=200, max_parents=200, confounder_share=0.2)
    slide = simulator.draw(np.random.default_rng(1), label=0)
    confounders = slide["planted_low"] >= NUM_LOW
    assert confounders.sum() == 40
    unit = slide["low_features"] / 10
    low_texts = simulator.low_texts.reshape(-1, simulator.dim)
    assert ((unit[confounders] @ low_texts.T).argmax(1) == slide["planted_low"][confounders]).mean() > 0.95


def test_sizes_keep_their_bounds_and_reach_them() -> None:
    simulator = make_simulator(min_parents=3, max_parents=6)
    generator = np.random.default_rng(0)
    sizes = Counter(len(simulator.draw(generator, 0)["mask"]) for _ in range(200))
    assert sorted(sizes) == [3, 4, 5, 6]


def test_settings_of_nothing_missing_give_full_slides() -> None:
    slide = make_simulator(missing_child=0.0, childless=0.0).draw(np.random.default_rng(0), 0)
    assert slide["mask"].all()
    assert not make_simulator(childless=1.0).draw(np.random.default_rng(0), 0)["mask"].any()
