"""explain.py: what it writes with and without the slide's file, and what it refuses."""

import re
import shutil
from pathlib import Path

import geojson
import h5py
import numpy as np
import pandas as pd
import pytest

import extract_features
from benchmarks.pyramids import tissue, write_pyramid
from models.tiny_clip import save_tiny_clip
from tests.conftest import FaultsOf, RunMain
from tests.support.faults import check_fault
from tests.support.planted_run import PlantedRun
from tests.support.real_slides import real_slide
from tests.support.run_contents import notes
from utils.files import tensors_sha256, write_json, write_tensors

O, S = 4, 3  # noqa: E741


def test_command_line(planted_run: PlantedRun, run_main: RunMain, tmp_path: Path) -> None:
    slide_id = planted_run.explained(0)[0].slide_id
    argv = ["--checkpoint", str(planted_run.checkpoint(0)), "--slide", slide_id, "--output-dir", str(tmp_path)]
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
    from models.vlms import load_text_side
    from utils.config import Config

    table.to_csv(folder / "real.csv", index=False)
    features = ["--data_root_dir", str(folder / "features"), "--task", "real", "--workers", "0"]
    encoder = ["--feature_extractor", "tinyclip", "--vlm-path", str(clip), "--device", "cpu", "--no-thumbnails"]
    slides = ["--wsi-dir", str(wsi_dir), "--dataset-csv", str(folder / "real.csv")]
    extract_features.main([*slides, *features, *encoder])
    config = Config(
        task="real", feature_extractor="tinyclip", vlm_path=str(clip), data_root_dir=str(folder / "features"),
        dataset_csv=str(folder / "real.csv"),
    )  # fmt: skip
    by_class = simulated_descriptions(["A", "B"])
    texts = arrange_descriptions(by_class, ["A", "B"], O, S)
    tower = load_text_side("tinyclip", str(clip))
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
    write_pyramid(tmp_path / "slides" / "one.svs", image, 20, 0.5)
    table = pd.DataFrame({"case_id": ["a", "b"], "slide_id": ["one", "other"], "label": ["A", "B"]})
    write_pyramid(tmp_path / "slides" / "other.svs", image, 20, 0.5)
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
    # of the classes; of each scale one and the anchor; the others by distributions, at most four of a kind
    assert len(patches) == 2 * (2 + 8) + 2 * 2 + 1 + (4 + 4)
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


def test_an_option_without_effect_is_noted(planted_run: PlantedRun, run_main: RunMain, tmp_path: Path) -> None:
    slide_id = pd.read_csv(planted_run.task.root / "simulated.csv")["slide_id"][0]
    argv = ["--checkpoint", str(planted_run.checkpoint(0)), "--slide", slide_id, "--output-dir", str(tmp_path)]
    useless = ["--prototype_number", "8", "--lr", "5", "--htcl", "none", "--num_workers", "2"]
    code, out, err = run_main([*argv, *useless, "--device", "cpu"], "explain")
    assert (code, err) == (0, "")
    assert notes(out) == [
        "note: --htcl has no effect on explanation",
        "note: --lr has no effect on explanation",
        "note: --num_workers has no effect on explanation",
        "note: --prototype_number has no effect on HiVE_MIL --variant paper",
    ]


# ---- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code", "where"),
    [
        (["--checkpoint", "{folder}/s_7_checkpoint.pt", "--slide", "X"], "checkpoint.missing",
         "{folder}/s_7_checkpoint.pt"),
        (["--checkpoint", "{folder}/config.json", "--slide", "X"], "tensors.unreadable", "{folder}/config.json"),
        (["--checkpoint", "{s0}", "{s0}", "--slide", "X"], "checkpoint.several_runs", "--checkpoint {s0} {s0}"),
        (["--checkpoint", "{s0}", "--slide", "X", "--top_k_low", "5"], "run.other_settings", "--top_k_low 5"),
        (["--checkpoint", "{s0}", "--slide", "SIM-0000", "--wsi-dir", "{folder}"], "slide.missing", "{folder}"),
    ],
    ids=str,
)  # fmt: skip
def test_mistakes(
    planted_run: PlantedRun, faults_of: FaultsOf, tmp_path: Path, options: list[str], code: str, where: str
) -> None:
    places = {"folder": planted_run.folder, "s0": planted_run.checkpoint(0)}
    argv = [option.format(**places) for option in options]
    (fault,) = faults_of([*argv, "--output-dir", str(tmp_path)], "explain")
    check_fault(fault, code, where.format(**places))
    assert list(tmp_path.iterdir()) == []


def test_a_slide_without_features_hides_no_other(planted_run: PlantedRun, faults_of: FaultsOf, tmp_path: Path) -> None:
    options = ["--slide", "NOT-THERE", "SIM-0000", "--output-dir", str(tmp_path), "--draws", "0"]
    faults = faults_of(["--checkpoint", str(planted_run.checkpoint(0)), *options], "explain")
    assert len(faults) == 2 and all("NOT-THERE.h5" in str(fault) for fault in faults)
    assert {file.name.split("_")[0].removesuffix(".html") for file in tmp_path.iterdir()} == {"SIM-0000"}


def test_a_bare_checkpoint_needs_its_task(planted_run: PlantedRun, faults_of: FaultsOf, tmp_path: Path) -> None:
    bare = shutil.copy(planted_run.checkpoint(0), tmp_path)
    faults = faults_of(["--checkpoint", str(bare), "--slide", "X", "--output-dir", str(tmp_path)], "explain")
    assert [(fault.code, fault.where) for fault in faults] == [
        ("option.missing", "--task"), ("option.missing", "--data_root_dir"),
    ]  # fmt: skip


def test_a_file_is_no_folder_to_write_to(planted_run: PlantedRun, faults_of: FaultsOf, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    options = ["--slide", "X", "--output-dir", str(tmp_path / "file")]
    (fault,) = faults_of(["--checkpoint", str(planted_run.checkpoint(0)), *options], "explain")
    check_fault(fault, "output.file", f"--output-dir {tmp_path / 'file'}")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--slide", "X", "--split", "test"], ["--split", "not allowed with"]),
        (["--slide", "X", "--draws", "-1"], ["--draws", "less than 0"]),
    ],
    ids=str,
)
def test_unreadable_options(
    planted_run: PlantedRun, run_main: RunMain, tmp_path: Path, options: list[str], words: list[str]
) -> None:
    argv = ["--checkpoint", str(planted_run.checkpoint(0)), "--output-dir", str(tmp_path), *options]
    code, _, err = run_main(argv, "explain")
    assert code == 2 and all(word in err for word in words)


def test_a_bare_checkpoint_explains_with_main_py_s_options(
    planted_run: PlantedRun, run_main: RunMain, faults_of: FaultsOf, tmp_path: Path
) -> None:
    task = planted_run.task
    bare = shutil.copy(planted_run.checkpoint(0), tmp_path)
    options = [
        *("--task", "simulated", "--feature_extractor", "tinyclip", "--vlm_path", str(task.root / "tinyclip")),
        *("--data_root_dir", str(task.root / "features"), "--dataset_csv", str(task.root / "simulated.csv")),
        *("--text_prompt", str(task.root / "simulated.json"), "--device", "cpu"),
    ]
    argv = ["--checkpoint", str(bare), "--output-dir", str(tmp_path), *options]
    explained = planted_run.explained(0)[0]
    code, _, err = run_main([*argv, "--slide", explained.slide_id, "--draws", "0"], "explain")
    assert (code, err) == (0, "")
    found = pd.read_csv(tmp_path / f"{explained.slide_id}_5x.csv")["score_SIMULATED_A"]
    np.testing.assert_allclose(found, explained.low.class_scores[:, 0], atol=1e-5)
    (fault,) = faults_of([*argv, "--split", "test"], "explain")
    check_fault(fault, "split.missing", "--split test", "splits_<fold>.csv", "--slides")
