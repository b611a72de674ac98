"""fetch_released_assets.py: features that two processes want, and one that was killed."""

from pathlib import Path

import pytest

from datasets import released as released_files
from datasets.folders import FeatureFolders
from tests.conftest import RunMain
from tests.support.archive_files import write_files
from tests.support.archived_features import IDS, features, packed, visible
from tests.support.drive_server import serve_drive
from tests.support.faults import expect_faults
from tests.support.run_contents import files_below
from tests.support.small_release import fetch, made_fixture, roomy_fixture  # noqa: F401
from utils.locks import locked


def test_features_that_another_process_fetches_are_left_to_it(roomy: Path) -> None:
    wanted = FeatureFolders(roomy, "tcga_rcc", "plip")
    with locked(roomy / ".tcga_rcc_plip.lock"), expect_faults("released.locked") as faults:
        released_files.fetch_features(wanted)
    assert faults[0].where == str(roomy / "tcga_rcc_plip")


def test_features_that_another_process_has_fetched_meanwhile_are_kept(roomy: Path) -> None:
    """As where both began without them."""
    wanted = FeatureFolders(roomy, "tcga_rcc", "plip")
    write_files(roomy / "tcga_rcc_plip", made := features("tcga_rcc", "plip"))
    assert released_files.fetch_features(wanted) == roomy / "tcga_rcc_plip"
    assert files_below(roomy / "tcga_rcc_plip") == made
    assert visible(roomy) == ["tcga_rcc_plip"]


def test_a_run_killed_once_the_features_are_in_place_is_tidied_by_the_next(
    run_main: RunMain, roomy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The archive goes, and what was unpacked; nothing is asked of the server again."""

    def killed(path: Path, missing_ok: bool = False) -> None:
        raise KeyboardInterrupt

    with serve_drive({IDS["tcga_rcc"]["plip"]: packed(tmp_path, "tcga_rcc", "plip")}) as server:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Path, "unlink", killed)
            released_files.fetch_features(FeatureFolders(roomy, "tcga_rcc", "plip"))
        assert (roomy / "tcga_rcc_plip.archive").exists()
        asked = len(server.requests)
        assert fetch(run_main, roomy, "--features", "tcga_rcc", "plip")[0] == 0
        assert len(server.requests) == asked
    assert files_below(roomy / "tcga_rcc_plip") == features("tcga_rcc", "plip")
    assert sorted(path.name for path in roomy.iterdir()) == [".tcga_rcc_plip.lock", "tcga_rcc_plip"]
