"""extract_features.py in parts: as shards of a job array, and on a Ray cluster of two nodes that loses a process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import psutil
import pytest
from ray.cluster_utils import Cluster

import extract_features
from benchmarks.pyramids import tissue, write_pyramid
from models.tiny_clip import save_tiny_clip
from tests.conftest import PROJECT, RunMain
from tests.support.run_contents import files_below
from utils.options import Shard

SCRIPT, SLIDES = "extract_features", 5


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slides and an encoder."""
    folder = tmp_path_factory.mktemp("made")
    save_tiny_clip(folder / "tinyclip", width=16)
    for number in range(SLIDES):
        image = tissue(1300, 1100, [(100, 100, 1200, 600 + 80 * number)], seed=number)
        write_pyramid(folder / "slides" / f"slide_{number}.svs", image, 20, 0.5)
    return folder


def call(made: Path, data: Path, *more: str) -> list[str]:
    return [
        *("--wsi-dir", str(made / "slides"), "--vlm-path", str(made / "tinyclip"), "--data_root_dir", str(data)),
        *("--task", "task", "--feature_extractor", "tinyclip", "--device", "cpu", "--workers", "0", "--no-thumbnails"),
        *more,
    ]


@pytest.fixture(scope="module")
def whole(made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one undisturbed run writes."""
    data = tmp_path_factory.mktemp("whole")
    extract_features.main(call(made, data))
    files = files_below(data)
    assert len(files) == 3 * SLIDES
    return files


# ---- shards ----------------------------------------------------------------------------------------------------------


def test_shards_together_are_one_run(made: Path, whole: dict[str, bytes], run_main: RunMain, tmp_path: Path) -> None:
    """Each of its own slides, none of another's."""
    numbers = []
    for number in (1, 2, 3):
        code, said, _ = run_main(call(made, tmp_path, "--shard", f"{number}/3"), SCRIPT)
        assert code == 0 and f"shard {number}/3: " in said
        numbers.append(len(files_below(tmp_path)))
    assert numbers == [6, 12, 15]
    assert files_below(tmp_path) == whole


def test_a_shard_without_slides_has_nothing_to_do(made: Path, run_main: RunMain, tmp_path: Path) -> None:
    code, said, _ = run_main(call(made, tmp_path, "--shard", "6/6"), SCRIPT)
    assert code == 0 and "shard 6/6: 0 of 5 slides" in said
    assert files_below(tmp_path) == {}


@pytest.mark.parametrize("given", ["0/3", "4/3", "3", "1/0", "-1/3", "1/3/3", "a/b", "1.5/3", " 1/3", "٣/٣"])
def test_what_is_no_shard(made: Path, run_main: RunMain, tmp_path: Path, given: str) -> None:
    code, _, said = run_main(call(made, tmp_path, "--shard", given), SCRIPT)
    assert code == 2 and "--shard" in said


def test_shards_share_all_items() -> None:
    items = list(range(17))
    for parts in range(1, 20):
        shares = [Shard(number, parts).part(items) for number in range(1, parts + 1)]
        assert sorted(chain(*shares)) == items
        assert np.ptp([len(share) for share in shares]) <= 1


# ---- a cluster -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of two nodes of one CPU each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        given = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 * 2**20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=given)
        cluster.add_node(num_cpus=1, num_gpus=0, object_store_memory=80 * 2**20)
    yield cluster.address
    cluster.shutdown()


def encoding() -> list[int]:
    """Process ids of the cluster's processes that encode a slide, as Ray names them."""
    there = psutil.process_iter(["cmdline"])
    return [process.pid for process in there if "ray::_encode_one" in "".join(process.info["cmdline"] or [])]


def test_a_cluster_that_loses_a_process_makes_the_files_of_one_run(
    made: Path, whole: dict[str, bytes], address: str, tmp_path: Path
) -> None:
    """Killed while it encodes; its slide is made by another."""
    command = [sys.executable, f"{SCRIPT}.py", *call(made, tmp_path / "data", "--address", address)]
    with (tmp_path / "said").open("w") as said:  # a fork of this process would wait for threads of Ray's
        process = subprocess.Popen(command, cwd=PROJECT, stdout=said, stderr=said)
    deadline = time.monotonic() + 300
    while process.poll() is None and not (found := encoding()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(found[0], signal.SIGKILL)
    assert process.wait(300) == 0, (tmp_path / "said").read_text()
    assert "5 slides to extract, 0 are there already" in (tmp_path / "said").read_text()
    assert files_below(tmp_path / "data") == whole


def test_faults_on_a_cluster_are_those_of_one_machine(
    made: Path, address: str, run_main: RunMain, tmp_path: Path
) -> None:
    """The other slides go on, with more --workers than a node has CPUs too."""
    slides = tmp_path / "slides"
    slides.mkdir()
    (slides / "slide_0.svs").symlink_to(made / "slides" / "slide_0.svs")
    (slides / "broken.svs").write_bytes(b"II*\0")
    command = call(
        made, tmp_path / "data", "--wsi-dir", str(slides), "--address", address, "--skip-errors", "--workers", "2"
    )
    code, said, _ = run_main(command, SCRIPT)
    assert code == 0 and "failed: 1 of 2 slides" in said and "broken.svs: not readable as a slide" in said
    assert len(files_below(tmp_path / "data")) == 3


def test_no_cluster_answers(made: Path, run_main: RunMain, tmp_path: Path) -> None:
    code, _, said = run_main(call(made, tmp_path, "--address", "127.0.0.1:1"), SCRIPT)
    assert code == 2 and "--address 127.0.0.1:1: no answer" in said


def test_gpus_of_a_worker_need_a_cluster(made: Path, run_main: RunMain, tmp_path: Path) -> None:
    code, _, said = run_main(call(made, tmp_path, "--gpus_per_worker", "1"), SCRIPT)
    assert code == 2 and "--gpus_per_worker is for --address" in said
