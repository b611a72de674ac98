"""Tables, GeoJSON and pages of explained slides fit the slides."""

import json
import re
from dataclasses import replace
from pathlib import Path

import geojson
import h5py
import numpy as np
import pandas as pd
import pytest

from datasets.folders import FeatureFolders
from explanation.explain_run import explain_slide, load_hive_mil
from explanation.explained_slide import ExplainedSlide
from explanation.explanation_files import write_explanation
from tests.support.browser import open_page, overflow
from tests.support.planted_run import PlantedRun


@pytest.fixture(scope="module")
def written(planted_run: PlantedRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[ExplainedSlide, Path]:
    """A explained of both folds with names that must be escaped, and the folder it was written to."""
    both = load_hive_mil([planted_run.checkpoint(0), planted_run.checkpoint(1)], {})
    explained = explain_slide(both, next(iter(both.slides)), ["fold 0", "fold 1"], 2)
    explained = replace(explained, class_names=['<b>"A"&', "B</script>"])
    folder = tmp_path_factory.mktemp("explained")
    write_explanation(explained, folder, "run", top=3)
    return explained, folder


@pytest.mark.parametrize("at", ["5x", "20x"])
def test_geojson_is_valid_and_lies_on_the_patches(
    planted_run: PlantedRun, written: tuple[ExplainedSlide, Path], at: str
) -> None:
    explained, folder = written
    found = geojson.loads((folder / f"{explained.slide_id}_{at}.geojson").read_text())
    assert found.is_valid and not re.search("NaN|Infinity", json.dumps(found))
    task = FeatureFolders(planted_run.task.root / "features", "simulated", "tinyclip")
    with h5py.File(
        task.low_file(explained.slide_id) if at == "5x" else task.hierarchical_file(explained.slide_id)
    ) as file:
        coords, size = file["coords"][()], int(file.attrs["patch_size_level0"])
        coords = coords if at == "5x" else coords[file["mask"][()]]
    assert len(found["features"]) == len(coords)
    scale = explained.low if at == "5x" else explained.high
    for (x, y), feature, scores in zip(coords, found["features"], scale.class_scores, strict=True):
        ring = np.array(feature["geometry"]["coordinates"][0])
        assert ring[0].tolist() == ring[-1].tolist() and len(feature["geometry"]["coordinates"]) == 1
        assert ring.min(0).tolist() == [x, y] and ring.max(0).tolist() == [x + size, y + size]
        turns = ring[:-1, 0] * ring[1:, 1] - ring[1:, 0] * ring[:-1, 1]
        assert turns.sum() / 2 == size**2  # counterclockwise
        properties = feature["properties"]
        assert properties["objectType"] == "tile"
        measured = [properties["measurements"][f"Score: {name}"] for name in explained.class_names]
        np.testing.assert_allclose(measured, scores, atol=1e-6)
        assert properties["classification"]["name"] == explained.class_names[int(np.argmax(scores))]
    assert len({feature["id"] for feature in found["features"]}) == len(coords)


def test_tables_hold_all_patches_and_texts(planted_run: PlantedRun, written: tuple[ExplainedSlide, Path]) -> None:
    explained, folder = written
    low, high, texts, removal = (
        pd.read_csv(folder / f"{explained.slide_id}_{name}.csv") for name in ("5x", "20x", "texts", "removal")
    )
    assert len(low) == len(explained.low.coords) and len(high) == explained.high.is_patch.sum()
    logits = explained.explanation.logits
    for k, name in enumerate(explained.class_names):
        assert low[f"added_{name}"].sum() + high[f"added_{name}"].sum() == pytest.approx(logits[k], abs=1e-3)
        assert texts[texts["class"] == name]["added"].sum() == pytest.approx(logits[k], abs=1e-4)
    parents = low.set_index("parent").loc[high["parent"], ["x", "y"]].to_numpy()
    inside = high[["x", "y"]].to_numpy() - parents
    assert (inside >= 0).all() and (inside + high["size"].iloc[0] <= low["size"].iloc[0]).all()
    name = explained.low.text_names[0]
    assert low[f"kept_{name}"].sum() == pytest.approx(texts["kept"].iloc[0])
    np.testing.assert_allclose(low[f"match_{name}"], explained.explanation.low.match[:, 0], atol=1e-6)
    outside = np.isnan(explained.explanation.high.similarity[explained.high.is_patch][:, 0])
    assert outside.any()
    np.testing.assert_array_equal(high[f"similarity_{explained.high.text_names[0]}"].isna(), outside)
    np.testing.assert_array_equal(high["attention_2"].isna(), outside)
    assert texts["description"].tolist() == [*explained.low.texts, *explained.high.texts]
    assert explained.removal is not None
    np.testing.assert_allclose(removal["random_mean"], removal[["random_1", "random_2"]].mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(removal["ranked"], explained.removal.ranked, atol=1e-6)


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_loads_in_a_browser(written: tuple[ExplainedSlide, Path], width: int) -> None:
    explained, folder = written
    file = folder / f"{explained.slide_id}.html"
    with open_page(width) as (page, errors):
        page.goto(file.as_uri())
        assert page.locator("h1").inner_text() == explained.slide_id
        assert overflow(page) == 0
        cells = page.locator("tbody").first.locator("tr").all()
        for row, name, probability in zip(cells, explained.class_names, explained.probabilities, strict=True):
            assert row.locator("td").nth(0).inner_text() == name
            assert row.locator("td").nth(1).inner_text() == f"{probability:.3f}"
        assert page.locator("details[open] > ol.patches > li").count() == 6
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        page.locator("input[type=range]").fill("0.2")
        assert page.evaluate("getComputedStyle(document.querySelector('.slide img')).opacity") == "0.2"
        links = [link.get_attribute("href") for link in page.locator("main ul a").all()]
        assert len(links) == 6 and all((folder / link).is_file() for link in links)
        assert errors == []
