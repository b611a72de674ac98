"""Explained slides: planted patches are found, and numbers agree with the run's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from explanation.explain_run import explain_slide, load_hive_mil, slides_to_explain
from explanation.explained_slide import Pixel
from tests.support.planted_run import PlantedRun
from utils.h5 import read_attributes
from utils.interface import Bag

O, S = 4, 3  # noqa: E741


# ---- what was planted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fold", [0, 1])
def test_planted_patches_have_the_highest_scores_and_are_kept(planted_run: PlantedRun, fold: int) -> None:
    right = [explained for explained in planted_run.explained(fold) if explained.prediction == explained.label]
    assert len(right) >= 4
    for explained in right:
        low, high = planted_run.planted(explained.slide_id)
        high = high[explained.high.is_patch]
        for scale, planted, per_class in ((explained.low, low, O), (explained.high, high, O * S)):
            own, background = (planted >= 0) & (planted // per_class == explained.label), planted < 0
            chosen = own | background
            assert roc_auc_score(own[chosen], scale.class_scores[chosen, explained.label]) >= 0.9
            kept = scale.explanation.kept[scale.is_patch]
            own_text = kept[own.nonzero()[0], planted[own]].mean()
            texts = scale.class_texts(explained.label, 2)
            assert own_text > 0.5 > 0.3 > kept[background][:, texts].mean()


@pytest.mark.parametrize("fold", [0, 1])
def test_removing_high_scores_hurts_more_than_chance(planted_run: PlantedRun, fold: int) -> None:
    right = [explained for explained in planted_run.explained(fold) if explained.prediction == explained.label]
    curves = np.array([explained.removal.mean_probabilities() for explained in right if explained.removal])
    ranked, random = curves.mean(0)
    assert ranked < random - 0.02
    first = [explained.removal.ranked[0] for explained in right if explained.removal]
    np.testing.assert_allclose(first, [explained.probabilities[explained.prediction] for explained in right], atol=1e-6)


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_probabilities_are_those_of_the_run(planted_run: PlantedRun) -> None:
    written = pd.read_csv(planted_run.folder / "predictions_0.csv").set_index("slide_id")
    written = written[written["split"] == "test"]
    reports = {explained.slide_id: explained for explained in planted_run.explained(0)}
    assert set(reports) == set(written.index)
    for slide_id, row in written.iterrows():
        expected = row[["prob_SIMULATED_A", "prob_SIMULATED_B"]].astype(float)
        np.testing.assert_allclose(reports[slide_id].probabilities, expected, atol=1e-5)
        assert reports[slide_id].class_names[reports[slide_id].label] == row["label"]
    hits = pd.read_csv(planted_run.folder / "summary.csv").set_index("fold").loc[0, "test_hit_ratio"]
    patches = [len(explained.low.places) for explained in reports.values()]  # the run pools them
    ratios = [explained.explanation.hit_ratio for explained in reports.values()]
    assert np.average(ratios, weights=patches) == pytest.approx(hits)


def test_folds_are_averaged(planted_run: PlantedRun) -> None:
    both = load_hive_mil([planted_run.checkpoint(1), planted_run.checkpoint(0)], {})
    slide_id = next(iter(both.slides))
    alone = [explain_slide(planted_run.run(fold), slide_id, [f"fold {fold}"]) for fold in (0, 1)]
    found = explain_slide(both, slide_id, ["fold 0", "fold 1"])
    probabilities = np.array([explained.probabilities for explained in alone])
    np.testing.assert_allclose(found.probabilities, probabilities.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.spread, np.abs(probabilities[0] - probabilities[1]) / 2, atol=1e-6)
    scores = [explained.low.class_scores for explained in alone]
    np.testing.assert_allclose(found.low.class_scores, (scores[0] + scores[1]) / 2, atol=1e-6)
    assert [fold.part for fold in found.folds] == [
        planted_run.run(fold).parts[f"fold {fold}"][slide_id] for fold in (0, 1)
    ]
    assert found.removal is None


def test_removal_is_of_the_predicted_class_over_the_folds(
    planted_run: PlantedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[np.ndarray, float]] = []

    def watch(bag: Bag, scores: np.ndarray, probability: Callable[[Bag], float], draws: int) -> None:
        given.append((scores, probability(bag)))

    monkeypatch.setattr("explanation.explain_run.removal_curve", watch)
    both, predicted = load_hive_mil([planted_run.checkpoint(0), planted_run.checkpoint(1)], {}), set()
    for slide_id in both.slides:
        explained = explain_slide(both, slide_id, ["fold 0", "fold 1"], 1)
        scores, probability = given.pop()
        np.testing.assert_array_equal(scores, explained.low.class_scores[:, explained.prediction])
        assert probability == pytest.approx(max(explained.probabilities), abs=1e-6)
        predicted.add(explained.prediction)
    assert predicted == {0, 1}


@pytest.mark.parametrize(("level0", "expected"), [(20, Pixel(0.5, is_nominal=True)), (np.nan, None)])
def test_the_table_of_slides_tells_the_size_of_pixels(
    planted_run: PlantedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level0: float, expected: Pixel | None
) -> None:
    """Where the features do not."""

    def untold(file: Path) -> dict[str, Any]:
        return {name: value for name, value in read_attributes(file).items() if name != "level0_magnification"}

    monkeypatch.setattr("explanation.slide_pixels.read_attributes", untold)
    table = pd.read_csv(planted_run.task.root / "simulated.csv").assign(level0_mag=level0)
    table.to_csv(tmp_path / "simulated.csv", index=False)
    run = load_hive_mil([planted_run.checkpoint(0)], {"dataset_csv": str(tmp_path / "simulated.csv")})
    assert explain_slide(run, table["slide_id"][0], ["fold 0"]).pixel == expected


def test_a_split_takes_each_slide_by_the_folds_it_is_in(planted_run: PlantedRun) -> None:
    both = load_hive_mil([planted_run.checkpoint(0), planted_run.checkpoint(1)], {})
    chosen = slides_to_explain(both, None, "val")
    for fold in (0, 1):
        split = pd.read_csv(planted_run.task.split_dir / f"splits_{fold}.csv")
        assert {slide for slide, folds in chosen.items() if f"fold {fold}" in folds} == set(split["val"].dropna())
