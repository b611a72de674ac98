"""fetch_released_assets.py: CONCH's weights, and options that do not fit."""

import io
import json
import re
from pathlib import Path

import pytest
import torch

from datasets import released as released_files
from tests.conftest import RunMain
from tests.support.drive_server import serve_drive
from tests.support.small_release import SCRIPT, fetch, files, made_fixture, options, roomy_fixture  # noqa: F401

# ---- CONCH's weights, and the options --------------------------------------------------------------------------------


def test_conch_weights(run_main: RunMain, roomy: Path, tmp_path: Path) -> None:
    state = {"logit_scale": torch.tensor(4.0), "text.ln_final.weight": torch.arange(5.0)}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    arguments = options("http://unused", tmp_path / "project", "--conch-weights")
    with serve_drive({released_files.RELEASED["conch_weights"]: buffer.getvalue()}) as server:
        code, output, _ = run_main(arguments, SCRIPT)
        file = tmp_path / "project" / "conch" / "pytorch_model.bin"
        assert code == 0
        assert f"fetched: {file}" in output
        assert torch.equal(torch.load(file, weights_only=True)["text.ln_final.weight"], torch.arange(5.0))
        assert [path.name for path in file.parent.iterdir()] == [file.name]
        asked = len(server.requests)
        code, output, _ = run_main(arguments, SCRIPT)
        assert code == 0
        assert f"there already: {file}" in output
        assert len(server.requests) == asked


def test_weights_that_are_none_leave_nothing(run_main: RunMain, roomy: Path, tmp_path: Path) -> None:
    with serve_drive({released_files.RELEASED["conch_weights"]: b"not tensors"}):
        code, _, errors = run_main(options("http://unused", tmp_path / "project", "--conch-weights"), SCRIPT)
    assert code == 2
    assert "not readable as tensors" in errors
    assert files(tmp_path / "project" / "conch") == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--features", "tcga_rcc", "plip"], "--features needs --data_root_dir"),
        (["--data-root-dir", "x"], "--data_root_dir and --keep-archive are for --features"),
        (["--keep-archive"], "--data_root_dir and --keep-archive are for --features"),
        (["--features", "tcga_rcc"], "expected 2 arguments"),
    ],
)
def test_options_that_do_not_fit(run_main: RunMain, more: list[str], message: str) -> None:
    code, _, errors = run_main(more, SCRIPT)
    assert code == 2
    assert message in errors


def test_unknown_features_are_all_named(run_main: RunMain, roomy: Path) -> None:
    code, _, errors = fetch(run_main, roomy, "--features", "camelyon16", "uni", "--features", "all", "gigapath")
    assert code == 2
    assert errors.startswith("error: 3 faults")
    assert "--features camelyon16 uni: unknown 'camelyon16'; expected tcga_brca, tcga_nsclc, tcga_rcc or all" in errors
    assert "unknown 'uni'; expected plip, quiltnet, conch or all" in errors
    assert "--features all gigapath: unknown 'gigapath'" in errors


def test_the_list_of_files_is_well_formed() -> None:
    """Also where ../shared is not at hand."""
    text = Path(released_files.__file__).with_name("released_assets.json").read_text()
    listed = json.loads(text)["files"]
    assert len(set(listed.values())) == len(listed)
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in listed.values())
    assert {name.split("/")[0] for name in listed} == {"dataset_csv", "splits", "text_prompt"}
