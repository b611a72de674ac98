"""A simulated task: slides whose class shows in a minority of patches, planted near the class's text features.

It stands in for real data in the demo and the tests, and nothing else knows of it. All numbers it leads to say how the
code behaves, not how well the method classifies tissue.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from datasets.folders import FeatureFolders
from datasets.simulation_settings import SimulationSettings
from utils import __version__
from utils.errors import Fault, UserError
from utils.files import write_json, write_text
from utils.h5 import write_h5
from utils.model_identity import ModelIdentity
from utils.spreadsheets import csv_text

CHILDREN_PER_SIDE = 4
CHILDREN_PER_PARENT = CHILDREN_PER_SIDE**2
LEVEL0_MAGNIFICATION = 40
PATCH_SIZE = 256
FEATURE_NORM = 10.0
NOT_PLANTED = -1

PATTERNS = ("nested", "cord-like", "papillary", "solid", "cribriform", "trabecular", "tubular", "whorled")
DETAILS = ("round nuclei", "pale cytoplasm", "coarse chromatin", "crisp borders", "granular cytoplasm", "thin septa")
QUALITIES = ("crowded", "scattered", "elongated", "vacuolated", "hyalinised", "inflamed", "oedematous", "speckled")


def simulated_descriptions(
    class_names: Sequence[str], num_low: int = 4, num_subtexts: int = 3
) -> dict[str, dict[str, str]]:
    """{class: {term: explanation}} of invented patterns, all different; the same on every call."""
    by_class: dict[str, dict[str, str]] = {}
    for k, name in enumerate(class_names):
        low, high = {}, {}
        for o in range(num_low):
            number = k * num_low + o
            pattern = PATTERNS[number % len(PATTERNS)]
            quality = QUALITIES[(3 * number + k) % len(QUALITIES)]
            low[f"Simulated {pattern} pattern {number}"] = f"{quality} areas in a {pattern} arrangement."
            for s in range(num_subtexts):
                detail = DETAILS[(number + 2 * s) % len(DETAILS)]
                look = QUALITIES[(number + 3 * s + 1) % len(QUALITIES)]
                high[f"Simulated detail {number}.{s}"] = f"{look} cells with {detail} in a {pattern} arrangement."
        by_class[name] = {**low, **high}
    return by_class


def _unit(vectors: np.ndarray) -> np.ndarray:
    units: np.ndarray = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return units


def _blob(generator: np.random.Generator, num_cells: int) -> np.ndarray:
    """Cells of a connected patch of tissue on a grid, in reading order: (num_cells, 2) of (column, row)."""
    side = int(np.ceil(np.sqrt(2 * num_cells))) + 2
    rows, columns = np.mgrid[:side, :side]
    distance = np.hypot(rows - side / 2, columns - side / 2) + generator.normal(0, 0.4, (side, side))
    cells = np.sort(np.argsort(distance, axis=None)[:num_cells])
    return np.stack([cells % side, cells // side], axis=1)


class SlideSimulator:
    """Draws slides. low_texts (K, O, D), high_texts (K, O, S, D): the text features that patterns are planted near."""

    def __init__(self, low_texts: np.ndarray, high_texts: np.ndarray, settings: SimulationSettings):
        self.low_texts = _unit(low_texts)
        self.high_texts = _unit(high_texts)
        self.settings = settings
        self.num_classes, self.num_low, self.num_subtexts, self.dim = high_texts.shape
        tissue = np.random.default_rng(0).normal(size=self.dim)
        self.tissue = 0.5 * tissue / np.linalg.norm(tissue)  # what all patches have in common

    def draw(self, generator: np.random.Generator, label: int) -> dict[str, np.ndarray]:
        """One slide: low and high features, coordinates, the mask of real children, and what was planted.

        planted_low (P,): index of the low text, k*O + o, or -1. planted_high (P, C): of the high text, or -1.
        """
        settings = self.settings
        bounds = np.log([settings.min_parents, settings.max_parents + 1])
        num_parents = int(np.exp(generator.uniform(*bounds)))
        mask = generator.random((num_parents, CHILDREN_PER_PARENT)) >= settings.missing_child
        mask[generator.random(num_parents) < settings.childless] = False
        planted_low = self._plant_low(generator, label, num_parents)
        planted_high = self._plant_high(generator, planted_low) * mask + NOT_PLANTED * ~mask
        low_coords, high_coords = self._coords(_blob(generator, num_parents))
        high = self._features(generator, planted_high, self.high_texts.reshape(-1, self.dim))
        return {
            "low_features": self._features(generator, planted_low, self.low_texts.reshape(-1, self.dim)),
            "high_features": high * mask[..., None],
            "low_coords": low_coords,
            "high_coords": high_coords * mask[..., None],
            "mask": mask,
            "planted_low": planted_low,
            "planted_high": planted_high,
        }

    def _plant_low(self, generator: np.random.Generator, label: int, num_parents: int) -> np.ndarray:
        settings = self.settings
        classes = np.full(num_parents, NOT_PLANTED)
        order = generator.permutation(num_parents)
        num_planted = max(1, round(settings.planted_share * num_parents))
        num_confounders = round(settings.confounder_share * num_parents)
        others = [k for k in range(self.num_classes) if k != label]
        classes[order[:num_planted]] = label
        classes[order[num_planted : num_planted + num_confounders]] = generator.choice(others, num_confounders)
        texts = classes * self.num_low + generator.integers(self.num_low, size=num_parents)
        return np.where(classes == NOT_PLANTED, NOT_PLANTED, texts)

    def _plant_high(self, generator: np.random.Generator, planted_low: np.ndarray) -> np.ndarray:
        shape = (len(planted_low), CHILDREN_PER_PARENT)
        texts = planted_low[:, None] * self.num_subtexts + generator.integers(self.num_subtexts, size=shape)
        is_planted = (planted_low != NOT_PLANTED)[:, None] & (
            generator.random(shape) < self.settings.planted_child_share
        )
        return np.where(is_planted, texts, NOT_PLANTED)

    def _features(self, generator: np.random.Generator, planted: np.ndarray, texts: np.ndarray) -> np.ndarray:
        noise = _unit(generator.normal(size=(*planted.shape, self.dim)))
        signal = self.settings.strength * texts[planted] * (planted != NOT_PLANTED)[..., None]
        return (FEATURE_NORM * _unit(noise + self.tissue + signal)).astype(np.float32)

    @staticmethod
    def _coords(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parent_size = PATCH_SIZE * LEVEL0_MAGNIFICATION // 5
        child_size = parent_size // CHILDREN_PER_SIDE
        low = (cells * parent_size).astype(np.int64)
        rows, columns = np.divmod(np.arange(CHILDREN_PER_PARENT), CHILDREN_PER_SIDE)
        return low, low[:, None] + child_size * np.stack([columns, rows], axis=1)


def write_simulated_slide(
    folders: FeatureFolders, slide_id: str, slide: Mapping[str, np.ndarray], model: ModelIdentity, seed: int
) -> None:
    """Write a slide's three feature files, and what was planted to planted/<slide_id>.h5 beside them."""
    made = {
        "simulated": True,
        "encoder": folders.feature_extractor,
        **model.attributes(),
        "level0_magnification": LEVEL0_MAGNIFICATION,
        "seed": seed,
        "version": __version__,
    }
    sizes = {magnification: PATCH_SIZE * LEVEL0_MAGNIFICATION // magnification for magnification in (5, 20)}
    low = {"features": slide["low_features"], "coords": slide["low_coords"]}
    mask = slide["mask"]
    high = {"features": slide["high_features"][mask], "coords": slide["high_coords"][mask]}
    children = {"features": slide["high_features"], "coords": slide["high_coords"], "mask": mask}
    write_h5(folders.low_file(slide_id), low, {**made, "magnification": 5, "patch_size_level0": sizes[5]})
    write_h5(folders.high_file(slide_id), high, {**made, "magnification": 20, "patch_size_level0": sizes[20]})
    both = {"low_magnification": 5, "high_magnification": 20, "patch_size_level0": sizes[20]}
    write_h5(folders.hierarchical_file(slide_id), children, {**made, **both})
    planted = {"low": slide["planted_low"], "high": slide["planted_high"]}
    write_h5(folders.root / "planted" / f"{slide_id}.h5", planted, {**made, **both})


def require_slides(slides_per_class: int, shots: Sequence[int]) -> None:
    """Raises UserError where a class has too few slides for training, validation and test."""
    needed = max(shots) + 4
    if slides_per_class < needed:
        found, expected = f"{max(shots)} of them train", f"at least {needed}, for training, validation and test slides"
        raise UserError(Fault("option.value", f"--slides-per-class {slides_per_class}", found, expected))


def write_simulated_task(
    root: Path,
    folders: FeatureFolders,
    descriptions: Mapping[str, Mapping[str, str]],
    simulator: SlideSimulator,
    model: ModelIdentity,
    slides_per_class: int,
    shots: Sequence[int],
    num_folds: int,
    seed: int,
) -> None:
    """Write features, <task>.csv, <task>.json and splits/<task>_<shots>/splits_<fold>.csv below ``root``.

    model: the one near whose texts the features lie. Each fold draws its training slides anew; of the others a third
    validate and the rest test.
    """
    generator = np.random.default_rng(seed)
    class_names = sorted(descriptions)
    rows = []
    for label, name in enumerate(class_names):
        for number in range(slides_per_class):
            slide_id = f"SIM-{label}{number:03d}"
            rows.append({"case_id": f"simulated_{label}{number:03d}", "slide_id": slide_id, "label": name})
            slide = simulator.draw(generator, label)
            if not slide["mask"].any():
                where = f"--missing-child {simulator.settings.missing_child} --childless {simulator.settings.childless}"
                found = f"slide {slide_id} has no child patch, which no model reads"
                raise UserError(Fault("option.value", where, found, "lower shares, or more parents (--min-parents)"))
            write_simulated_slide(folders, slide_id, slide, model, seed)
    table = pd.DataFrame(rows).assign(level0_mag=LEVEL0_MAGNIFICATION)
    write_text(root / f"{folders.task}.csv", csv_text(table, index=False))
    write_json(root / f"{folders.task}.json", descriptions)
    for number in shots:
        for fold in range(num_folds):
            split = _draw_split(generator, table, number)
            write_text(root / "splits" / f"{folders.task}_{number}" / f"splits_{fold}.csv", split.to_csv())


def _draw_split(generator: np.random.Generator, table: pd.DataFrame, shots: int) -> pd.DataFrame:
    parts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for _, members in table.groupby("label"):
        ids = generator.permutation(members["slide_id"]).tolist()
        num_val = (len(ids) - shots) // 3
        parts["train"] += ids[:shots]
        parts["val"] += ids[shots : shots + num_val]
        parts["test"] += ids[shots + num_val :]
    return pd.DataFrame({name: pd.Series(ids, dtype=str) for name, ids in parts.items()}).fillna("")
