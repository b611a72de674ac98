"""explain.py: planted patches are found, numbers agree with the run's own, pages, tables and GeoJSON fit the slide."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import geojson
import h5py
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import create_simulated_task
import extract_features
import main
from benchmarks.slide_files import tissue, write_slide
from datasets.feature_layouts import read_attributes
from datasets.folders import FeatureFolders
from explain import write_report
from explanation.explain_slide import choose_slides, explain_slide, load_hive_mil
from explanation.explained_slide import Pixel, SlideReport
from models.tiny_clip import save_tiny_clip
from tests.browser import open_page, overflow
from tests.conftest import RunMain, SimulatedTask
from tests.run_contents import notes
from tests.slide_files import real_slide
from training.inputs import TrainedRun
from utils.files import tensors_sha256, write_json, write_tensors
from utils.interface import Bag

O, S = 4, 3  # noqa: E741


@dataclass(frozen=True)
class Trained:
    """A run of two folds, and the reports of the test slides of each."""

    task: SimulatedTask
    folder: Path

    def checkpoint(self, fold: int) -> Path:
        return self.folder / f"s_{fold}_checkpoint.pt"

    @cache  # noqa: B019
    def run(self, fold: int) -> TrainedRun:
        return load_hive_mil([self.checkpoint(fold)], {})

    @cache  # noqa: B019
    def reports(self, fold: int) -> list[SlideReport]:
        run = self.run(fold)
        return [explain_slide(run, slide_id, [f"fold {fold}"], 2) for slide_id in choose_slides(run, None, "test")]

    def planted(self, slide_id: str) -> tuple[np.ndarray, np.ndarray]:
        with h5py.File(self.task.features / "planted" / f"{slide_id}.h5") as file:
            return file["low"][()], file["high"][()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("planted")
    sizes = "--classes", "2", "--slides-per-class", "10", "--min-parents", "20", "--max-parents", "30"
    create_simulated_task.main(["--output-dir", str(root), "--folds", "2", *sizes])
    task = SimulatedTask(root)
    main.main(task.options(root / "results", "--max_epochs", "12"))
    return Trained(task, task.run_folder(root / "results"))


# ---- what was planted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fold", [0, 1])
def test_planted_patches_have_the_highest_scores_and_are_kept(trained: Trained, fold: int) -> None:
    right = [report for report in trained.reports(fold) if report.prediction == report.label]
    assert len(right) >= 4
    for report in right:
        low, high = trained.planted(report.slide_id)
        high = high[report.high.is_patch]
        for scale, planted, per_class in ((report.low, low, O), (report.high, high, O * S)):
            own, background = (planted >= 0) & (planted // per_class == report.label), planted < 0
            chosen = own | background
            assert roc_auc_score(own[chosen], scale.class_scores[chosen, report.label]) >= 0.9
            kept = scale.explanation.kept[scale.is_patch]
            own_text = kept[own.nonzero()[0], planted[own]].mean()
            texts = scale.class_texts(report.label, 2)
            assert own_text > 0.5 > 0.3 > kept[background][:, texts].mean()


@pytest.mark.parametrize("fold", [0, 1])
def test_removing_high_scores_hurts_more_than_chance(trained: Trained, fold: int) -> None:
    right = [report for report in trained.reports(fold) if report.prediction == report.label]
    curves = np.array([report.removal.mean_probabilities() for report in right if report.removal])
    ranked, random = curves.mean(0)
    assert ranked < random - 0.02
    first = [report.removal.ranked[0] for report in right if report.removal]
    np.testing.assert_allclose(first, [report.probabilities[report.prediction] for report in right], atol=1e-6)


# ---- numbers ---------------------------------------------------------------------------------------------------------


def test_probabilities_are_those_of_the_run(trained: Trained) -> None:
    written = pd.read_csv(trained.folder / "predictions_0.csv").set_index("slide_id")
    written = written[written["split"] == "test"]
    reports = {report.slide_id: report for report in trained.reports(0)}
    assert set(reports) == set(written.index)
    for slide_id, row in written.iterrows():
        expected = row[["prob_SIMULATED_A", "prob_SIMULATED_B"]].astype(float)
        np.testing.assert_allclose(reports[slide_id].probabilities, expected, atol=1e-5)
        assert reports[slide_id].class_names[reports[slide_id].label] == row["label"]
    hits = pd.read_csv(trained.folder / "summary.csv").set_index("fold").loc[0, "test_hit_ratio"]
    assert np.nanmean([report.explanation.hit_ratio for report in reports.values()]) == pytest.approx(hits)


def test_folds_are_averaged(trained: Trained) -> None:
    both = load_hive_mil([trained.checkpoint(1), trained.checkpoint(0)], {})
    slide_id = next(iter(both.slides))
    alone = [explain_slide(trained.run(fold), slide_id, [f"fold {fold}"]) for fold in (0, 1)]
    found = explain_slide(both, slide_id, ["fold 0", "fold 1"])
    probabilities = np.array([report.probabilities for report in alone])
    np.testing.assert_allclose(found.probabilities, probabilities.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.spread, np.abs(probabilities[0] - probabilities[1]) / 2, atol=1e-6)
    scores = [report.low.class_scores for report in alone]
    np.testing.assert_allclose(found.low.class_scores, (scores[0] + scores[1]) / 2, atol=1e-6)
    assert [fold.part for fold in found.folds] == [trained.run(fold).parts[f"fold {fold}"][slide_id] for fold in (0, 1)]
    assert found.removal is None


def test_removal_is_of_the_predicted_class_over_the_folds(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[np.ndarray, float]] = []

    def watch(bag: Bag, scores: np.ndarray, probability: Callable[[Bag], float], draws: int) -> None:
        given.append((scores, probability(bag)))

    monkeypatch.setattr("explanation.explain_slide.removal_curve", watch)
    both, predicted = load_hive_mil([trained.checkpoint(0), trained.checkpoint(1)], {}), set()
    for slide_id in both.slides:
        report = explain_slide(both, slide_id, ["fold 0", "fold 1"], 1)
        scores, probability = given.pop()
        np.testing.assert_array_equal(scores, report.low.class_scores[:, report.prediction])
        assert probability == pytest.approx(max(report.probabilities), abs=1e-6)
        predicted.add(report.prediction)
    assert predicted == {0, 1}


@pytest.mark.parametrize(("level0", "expected"), [(20, Pixel(0.5, is_nominal=True)), (np.nan, None)])
def test_the_table_of_slides_tells_the_size_of_pixels(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level0: float, expected: Pixel | None
) -> None:
    """Where the features do not."""

    def untold(file: Path) -> dict[str, Any]:
        return {name: value for name, value in read_attributes(file).items() if name != "level0_magnification"}

    monkeypatch.setattr("explanation.slide_pixels.read_attributes", untold)
    table = pd.read_csv(trained.task.root / "simulated.csv").assign(level0_mag=level0)
    table.to_csv(tmp_path / "simulated.csv", index=False)
    run = load_hive_mil([trained.checkpoint(0)], {"dataset_csv": str(tmp_path / "simulated.csv")})
    assert explain_slide(run, table["slide_id"][0], ["fold 0"]).pixel == expected


def test_a_split_takes_each_slide_by_the_folds_it_is_in(trained: Trained) -> None:
    both = load_hive_mil([trained.checkpoint(0), trained.checkpoint(1)], {})
    chosen = choose_slides(both, None, "val")
    for fold in (0, 1):
        split = pd.read_csv(trained.task.split_dir / f"splits_{fold}.csv")
        assert {slide for slide, folds in chosen.items() if f"fold {fold}" in folds} == set(split["val"].dropna())


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> tuple[SlideReport, Path]:
    """A report of both folds with names that must be escaped, and the folder it was written to."""
    both = load_hive_mil([trained.checkpoint(0), trained.checkpoint(1)], {})
    report = explain_slide(both, next(iter(both.slides)), ["fold 0", "fold 1"], 2)
    report = replace(report, class_names=['<b>"A"&', "B</script>"])
    folder = tmp_path_factory.mktemp("explained")
    write_report(report, folder, "run", top=3)
    return report, folder


@pytest.mark.parametrize("at", ["5x", "20x"])
def test_geojson_is_valid_and_lies_on_the_patches(trained: Trained, written: tuple[SlideReport, Path], at: str) -> None:
    report, folder = written
    found = geojson.loads((folder / f"{report.slide_id}_{at}.geojson").read_text())
    assert found.is_valid and not re.search("NaN|Infinity", json.dumps(found))
    task = FeatureFolders(trained.task.root / "features", "simulated", "tinyclip")
    with h5py.File(task.low_file(report.slide_id) if at == "5x" else task.hierarchical_file(report.slide_id)) as file:
        coords, size = file["coords"][()], int(file.attrs["patch_size_level0"])
        coords = coords if at == "5x" else coords[file["mask"][()]]
    assert len(found["features"]) == len(coords)
    scale = report.low if at == "5x" else report.high
    for (x, y), feature, scores in zip(coords, found["features"], scale.class_scores, strict=True):
        ring = np.array(feature["geometry"]["coordinates"][0])
        assert ring[0].tolist() == ring[-1].tolist() and len(feature["geometry"]["coordinates"]) == 1
        assert ring.min(0).tolist() == [x, y] and ring.max(0).tolist() == [x + size, y + size]
        turns = ring[:-1, 0] * ring[1:, 1] - ring[1:, 0] * ring[:-1, 1]
        assert turns.sum() / 2 == size**2  # counterclockwise
        properties = feature["properties"]
        assert properties["objectType"] == "tile"
        measured = [properties["measurements"][f"Score: {name}"] for name in report.class_names]
        np.testing.assert_allclose(measured, scores, atol=1e-6)
        assert properties["classification"]["name"] == report.class_names[int(np.argmax(scores))]
    assert len({feature["id"] for feature in found["features"]}) == len(coords)


def test_tables_hold_all_patches_and_texts(trained: Trained, written: tuple[SlideReport, Path]) -> None:
    report, folder = written
    low, high, texts, removal = (
        pd.read_csv(folder / f"{report.slide_id}_{name}.csv") for name in ("5x", "20x", "texts", "removal")
    )
    assert len(low) == len(report.low.coords) and len(high) == report.high.is_patch.sum()
    logits = report.explanation.logits
    for k, name in enumerate(report.class_names):
        assert low[f"added_{name}"].sum() + high[f"added_{name}"].sum() == pytest.approx(logits[k], abs=1e-3)
        assert texts[texts["class"] == name]["added"].sum() == pytest.approx(logits[k], abs=1e-4)
    parents = low.set_index("parent").loc[high["parent"], ["x", "y"]].to_numpy()
    inside = high[["x", "y"]].to_numpy() - parents
    assert (inside >= 0).all() and (inside + high["size"].iloc[0] <= low["size"].iloc[0]).all()
    name = report.low.text_names[0]
    assert low[f"kept_{name}"].sum() == pytest.approx(texts["kept"].iloc[0])
    np.testing.assert_allclose(low[f"match_{name}"], report.explanation.low.match[:, 0], atol=1e-6)
    outside = np.isnan(report.explanation.high.similarity[report.high.is_patch][:, 0])
    assert outside.any()
    np.testing.assert_array_equal(high[f"similarity_{report.high.text_names[0]}"].isna(), outside)
    np.testing.assert_array_equal(high["attention_2"].isna(), outside)
    assert texts["description"].tolist() == [*report.low.texts, *report.high.texts]
    assert report.removal is not None
    np.testing.assert_allclose(removal["random_mean"], removal[["random_1", "random_2"]].mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(removal["ranked"], report.removal.ranked, atol=1e-6)


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_loads_in_a_browser(written: tuple[SlideReport, Path], width: int) -> None:
    report, folder = written
    file = folder / f"{report.slide_id}.html"
    with open_page(width) as (page, errors):
        page.goto(file.as_uri())
        assert page.locator("h1").inner_text() == report.slide_id
        assert overflow(page) == 0
        cells = page.locator("tbody").first.locator("tr").all()
        for row, name, probability in zip(cells, report.class_names, report.probabilities, strict=True):
            assert row.locator("td").nth(0).inner_text() == name
            assert row.locator("td").nth(1).inner_text() == f"{probability:.3f}"
        assert page.locator("details[open] > ol.patches > li").count() == 6
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        page.locator("input[type=range]").fill("0.2")
        assert page.evaluate("getComputedStyle(document.querySelector('.slide img')).opacity") == "0.2"
        links = [link.get_attribute("href") for link in page.locator("main ul a").all()]
        assert len(links) == 6 and all((folder / link).is_file() for link in links)
        assert errors == []


def test_command_line(trained: Trained, run_main: RunMain, tmp_path: Path) -> None:
    slide_id = trained.reports(0)[0].slide_id
    argv = ["--checkpoint", str(trained.checkpoint(0)), "--slide", slide_id, "--output-dir", str(tmp_path)]
    code, out, err = run_main([*argv, "--draws", "0"], "explain")
    assert (code, err) == (0, "") and "1 slides explained" in out
    names = {"5x.csv", "20x.csv", "5x.geojson", "20x.geojson", "texts.csv"}
    assert {file.name for file in tmp_path.iterdir()} == {f"{slide_id}.html"} | {f"{slide_id}_{name}" for name in names}
    assert "as many at random" not in (tmp_path / f"{slide_id}.html").read_text()


# ---- with the slide --------------------------------------------------------------------------------------------------


def untrained(folder: Path, clip: Path, wsi_dir: Path, table: pd.DataFrame) -> list[str]:
    """Features of some slides and a run of an untrained model; the options that explain them."""
    import torch

    from datasets.descriptions import arrange_descriptions
    from datasets.simulate import simulated_descriptions
    from models.build import build_model
    from models.text_towers import load_text_tower
    from utils.config import Config

    table.to_csv(folder / "real.csv", index=False)
    features = ["--dataset-root-path", str(folder / "features"), "--dataset-name", "real", "--workers", "0"]
    encoder = ["--feature-extractor-name", "tinyclip", "--vlm-path", str(clip), "--device", "cpu", "--no-thumbnails"]
    slides = ["--wsi-dir", str(wsi_dir), "--dataset-csv", str(folder / "real.csv")]
    extract_features.main([*slides, *features, *encoder])
    config = Config(
        task="real", feature_extractor="tinyclip", vlm_path=str(clip), data_root_dir=str(folder / "features"),
        dataset_csv=str(folder / "real.csv"),
    )  # fmt: skip
    by_class = simulated_descriptions(["A", "B"])
    texts = arrange_descriptions(by_class, ["A", "B"], O, S)
    tower = load_text_tower("tinyclip", str(clip))
    torch.manual_seed(0)
    model = build_model(config, tower, texts.low_texts, texts.high_texts, 2)
    write_tensors(folder / "s_0_checkpoint.pt", model.checkpoint())
    inputs = {"text_tower": tensors_sha256(tower.state_dict())}
    record = {"options": config.to_dict(), "class_names": ["A", "B"], "descriptions": by_class, "inputs": inputs}
    write_json(folder / "config.json", record)
    chosen = ["--slide", *table["slide_id"], "--wsi-dir", str(wsi_dir)]
    return ["--checkpoint", str(folder / "s_0_checkpoint.pt"), "--output-dir", str(folder / "out"), *chosen]


def test_patches_and_overview_show_the_tissue(run_main: RunMain, tmp_path: Path) -> None:
    """On a white slide with a rectangle of tissue: the page's overview has it where the patches are."""
    import base64
    import io

    from PIL import Image

    save_tiny_clip(tmp_path / "clip", width=16)
    left, top = 1024, 1024  # a parent's corner
    image = tissue(3072, 4096, [(top, left, top + 1024, left + 2048)])
    write_slide(tmp_path / "slides" / "one.svs", image, 20, 0.5)
    table = pd.DataFrame({"case_id": ["a", "b"], "slide_id": ["one", "other"], "label": ["A", "B"]})
    write_slide(tmp_path / "slides" / "other.svs", image, 20, 0.5)
    argv = untrained(tmp_path, tmp_path / "clip", tmp_path / "slides", table)
    code, _, err = run_main([*argv, "--draws", "0"], "explain")
    assert (code, err) == (0, "")
    page = (tmp_path / "out" / "one.html").read_text()
    parents = pd.read_csv(tmp_path / "out" / "one_5x.csv")[["x", "y"]].to_numpy()
    assert parents.tolist() == [[left, top], [left + 1024, top]]
    overview = re.search(r'url\("data:image/jpeg;base64,([^"]+)', page)
    assert overview and "about:" not in page and "nominal" not in page
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(overview[1]))).convert("HSV"))[..., 1] > 40
    rows, columns = pixels.any(1).nonzero()[0], pixels.any(0).nonzero()[0]
    shrink = (2048 + 2 * 256) / pixels.shape[1]  # the patches with a margin of one child
    found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) * shrink - 256
    np.testing.assert_allclose(found, [0, 0, 2048, 1024], atol=3 * shrink)
    assert "200 µm" in page
    patches = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)', page)
    assert len(patches) == 2 * (2 + 8)
    for patch in patches:
        assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(patch))).convert("HSV"))[..., 1] > 40).mean() > 0.9


def test_real_slides(run_main: RunMain, tmp_path: Path) -> None:
    save_tiny_clip(tmp_path / "clip", width=16)
    files = [real_slide(f"{name}.svs") for name in ("cmu-1-small-region", "tcga-cr-7395")]
    table = pd.DataFrame({"slide_id": [file.stem for file in files], "label": ["A", "B"], "level0_mag": [20, 40]})
    argv = untrained(tmp_path, tmp_path / "clip", files[0].parent, table)
    code, _, err = run_main(argv, "explain")
    assert (code, err) == (0, "")
    measured, nominal = ((tmp_path / "out" / f"{file.stem}.html").read_text() for file in files)
    assert "nominal magnification" in nominal and "nominal magnification" not in measured
    for file in files:
        with h5py.File(next((tmp_path / "features").rglob(f"tinyclip_5x/{file.stem}.h5"))) as opened:
            coords = opened["coords"][()].tolist()
        features = geojson.loads((tmp_path / "out" / f"{file.stem}_5x.geojson").read_text())["features"]
        assert [feature["geometry"]["coordinates"][0][0] for feature in features] == coords


def test_an_option_without_effect_is_noted(trained: Trained, run_main: RunMain, tmp_path: Path) -> None:
    slide_id = pd.read_csv(trained.task.root / "simulated.csv")["slide_id"][0]
    argv = ["--checkpoint", str(trained.checkpoint(0)), "--slide", slide_id, "--output-dir", str(tmp_path)]
    code, out, err = run_main([*argv, "--prototype_number", "8"], "explain")
    assert (code, err) == (0, "")
    assert notes(out) == ["note: --prototype_number has no effect on HiVE_MIL --variant paper"]


# ---- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--checkpoint", "{folder}/s_7_checkpoint.pt", "--slide", "X"], ["s_7_checkpoint.pt", "no such checkpoint"]),
        (["--checkpoint", "{folder}/config.json", "--slide", "X"], ["config.json", "not a checkpoint"]),
        (["--checkpoint", "{s0}", "{s0}", "--slide", "X"], ["different folds"]),
        (["--checkpoint", "{s0}", "--slide", "NOT-THERE", "SIM-0000"], ["NOT-THERE.h5", "not found"]),
        (["--checkpoint", "{s0}", "--slide", "X", "--top_k_low", "5"], ["--top_k_low 5", "trained with 2"]),
        (["--checkpoint", "{s0}", "--slide", "SIM-0000", "--wsi-dir", "{folder}"], ["SIM-0000", "{folder}"]),
        (["--checkpoint", "{s0}"], ["--slide", "--split", "required"]),
        (["--checkpoint", "{s0}", "--slide", "X", "--draws", "-1"], ["--draws"]),
        (["--checkpoint", "{bare}", "--slide", "X"], ["--task and --data_root_dir missing"]),
    ],
    ids=str,
)
def test_mistakes(trained: Trained, run_main: RunMain, tmp_path: Path, options: list[str], words: list[str]) -> None:
    bare = shutil.copy(trained.checkpoint(0), tmp_path)
    places = {"folder": trained.folder, "s0": trained.checkpoint(0), "bare": bare}
    argv = [option.format(**places) for option in options]
    code, _, err = run_main([*argv, "--output-dir", str(tmp_path / "out")], "explain")
    assert code == 2 and "Traceback" not in err
    assert all(word.format(**places) in err for word in words)
    assert not list((tmp_path / "out").rglob("NOT-THERE*")) and not list((tmp_path / "out").rglob("X*"))


def test_a_bare_checkpoint_explains_with_main_py_s_options(trained: Trained, run_main: RunMain, tmp_path: Path) -> None:
    task = trained.task
    bare = shutil.copy(trained.checkpoint(0), tmp_path)
    options = [
        *("--task", "simulated", "--feature_extractor", "tinyclip", "--vlm_path", str(task.root / "tinyclip")),
        *("--data_root_dir", str(task.root / "features"), "--dataset_csv", str(task.root / "simulated.csv")),
        *("--text_prompt", str(task.root / "simulated.json"), "--device", "cpu"),
    ]
    argv = ["--checkpoint", str(bare), "--output-dir", str(tmp_path), *options]
    report = trained.reports(0)[0]
    code, _, err = run_main([*argv, "--slide", report.slide_id, "--draws", "0"], "explain")
    assert (code, err) == (0, "")
    found = pd.read_csv(tmp_path / f"{report.slide_id}_5x.csv")["score_SIMULATED_A"]
    np.testing.assert_allclose(found, report.low.class_scores[:, 0], atol=1e-5)
    code, _, err = run_main([*argv, "--split", "test"], "explain")
    assert code == 2 and "splits_<fold>.csv" in err and "--slide" in err
