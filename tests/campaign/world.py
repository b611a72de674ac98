"""Small data for every script: a task, a trained run, slides, features to link and to repair, servers."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from benchmarks.pyramids import tissue, write_pyramid
from tests.campaign.calls import Call, WarmProcess
from tests.campaign.stand_ins import ARCHIVED, PROJECT_OF_A_GRID, STOP, servers
from tests.support.archive_files import archive_of, write_files
from tests.support.small_release import MADE

CLASSES = ("SIMULATED_A", "SIMULATED_B")
RUN = "trained/simulated/tinyclip/2/simulated_tinyclip_HiVE_MIL_2_s1"
STOPPED_RUN = RUN.replace("trained", "stopped", 1)
HIERARCHICAL = "hierarchical_tinyclip_5x_20x"
GRID = "k: 2\nruns:\n  one: {lr: 0.001}\n  two: {lr: 0.01}\n"


@dataclass(frozen=True)
class World:
    """root: holds the folders that scenarios copy. urls: of the servers, by their names. process: makes calls."""

    root: Path
    urls: dict[str, str]
    process: WarmProcess


def task_options(results: str, *more: str) -> tuple[str, ...]:
    """main.py's options; paths are relative to a scenario's place."""
    return (
        *("--task", "simulated", "--feature_extractor", "tinyclip", "--vlm_path", "task/tinyclip"),
        *("--data_root_dir", "task/features", "--dataset_csv", "task/simulated.csv"),
        *("--text_prompt", "task/simulated.json", "--split_dir", "task/splits/simulated_2", "--few_shot_num", "2"),
        *("--k", "2", "--lr", "1e-3", "--max_epochs", "1", "--num_context_tokens", "4", "--device", "cpu"),
        *("--results_dir", results, *more),
    )


@contextmanager
def made_world(root: Path, process: WarmProcess) -> Iterator[World]:
    """Make the data below an empty folder; the servers answer until the block ends."""
    _call(
        process, root, "create_simulated_task", "--output-dir", "task", "--classes", "2", "--slides-per-class", "6",
        "--shots", "2", "--width", "16", "--min-parents", "3", "--max-parents", "5",
    )  # fmt: skip
    shutil.rmtree(root / "task" / "features" / "simulated_tinyclip" / "planted")
    _call(process, root, "main", *task_options("trained"))
    _call(process, root, "main", *task_options("stopped"), arrange=STOP, code=130)
    _write_slides(root)
    _write_features(root)
    _write_small_files(root)
    archive = _archive(root)
    write_files(root / "release", MADE)
    with servers(archive, root / "release") as urls:
        yield World(root, urls, process)


def _call(process: WarmProcess, root: Path, script: str, *argv: str, arrange: str = "", code: int = 0) -> None:
    ended = process.run(Call(script, argv, str(root), arrange))
    assert ended.code == code, ended.said


def _write_slides(root: Path) -> None:
    for number in range(2):
        image = tissue(700, 600 + 100 * number, [(50, 50, 650, 500)], seed=number)
        write_pyramid(root / "slides" / CLASSES[number] / f"slide_{number}.svs", image, 20, 0.5)


def _write_features(root: Path) -> None:
    """unlinked/: features without hierarchical files. broken/: one hierarchical file whose children stand in a wrong
    order, and one without a mask."""
    features = root / "task" / "features"
    shutil.copytree(features, root / "unlinked", ignore=shutil.ignore_patterns(HIERARCHICAL))
    shutil.copytree(features, root / "broken")
    first, second = sorted((root / "broken" / "simulated_tinyclip" / HIERARCHICAL).glob("*.h5"))[:2]
    with h5py.File(first, "r+") as file:
        file["features"][...] = file["features"][...][::-1]
        file["coords"][...] = file["coords"][...][::-1]
        file["mask"][...] = file["mask"][...][::-1]
    with h5py.File(second, "r+") as file:
        del file["mask"]


def _write_small_files(root: Path) -> None:
    generator = np.random.default_rng(2)
    rows = [[bag % 2, bag, *generator.normal(bag % 2, 1, 3).round(3)] for bag in range(24) for _ in range(2)]
    (root / "small").mkdir()
    pd.DataFrame(rows).to_csv(root / "small" / "mil.csv", header=False, index=False)
    slides = [(f"patient_{number}", f"slide_{number}", CLASSES[number % 2]) for number in range(24)]
    table = pd.DataFrame(slides, columns=["case_id", "slide_id", "label"])
    table.to_csv(root / "small" / "table.csv", index=False)
    (root / "small" / "grid.yaml").write_text(GRID)
    (root / "project").mkdir()
    (root / "project" / "main.py").write_text(PROJECT_OF_A_GRID)


def _archive(root: Path) -> bytes:
    task, extractor = ARCHIVED
    generator = np.random.default_rng(3)
    files = {
        f"{name}/{task}-{number}.h5": generator.bytes(100_000)
        for name in (f"{extractor}_5x", f"hierarchical_{extractor}_5x_20x")
        for number in range(2)
    }
    folder = write_files(root / "packed", files)
    archive = archive_of(folder, "zip", root / "archive").read_bytes()
    shutil.rmtree(folder)
    return archive
