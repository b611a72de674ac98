"""``--graph_backend`` through the scripts: runs of one backend are resumed, used and explained with the other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import RunMain, SimulatedTask
from tests.support.run_contents import notes

pytestmark = pytest.mark.usefixtures("blank_figures")

BOTH_WAYS = pytest.mark.parametrize(("first", "second"), [("blocked", "pyg"), ("pyg", "blocked")])


def probabilities(file: Path) -> pd.DataFrame:
    table = pd.read_csv(file).set_index("slide_id")
    return table.filter(like="prob").sort_index()


def assert_close(found: Path, expected: Path) -> None:
    found_values, expected_values = probabilities(found), probabilities(expected)
    assert len(expected_values) > 0 and expected_values.shape[1] == 2
    pd.testing.assert_frame_equal(found_values, expected_values, rtol=0, atol=1e-4)


def test_a_run_of_either_gives_the_same(quick: Callable[..., Path]) -> None:
    assert_close(quick("--graph_backend", "pyg") / "predictions_0.csv", quick() / "predictions_0.csv")


@BOTH_WAYS
def test_an_interrupted_run_goes_on_with_the_other(
    simulated: SimulatedTask,
    whole: Path,
    tmp_path: Path,
    run_main: RunMain,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    second: str,
) -> None:
    """Weights and the optimiser's state are those of the other's."""
    step, steps = torch.optim.Adam.step, 0

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 12:  # in the second epoch of 8
            raise KeyboardInterrupt
        return step(*args, **kwargs)

    options = simulated.options(tmp_path, "--k_end", "1")
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", interrupted)
        assert run_main([*options, "--graph_backend", first])[0] == 130
    code, out, err = run_main([*options, "--graph_backend", second, "--resume"])
    assert (code, err) == (0, "")
    assert "fold 0 epoch   1/3" not in out and "fold 0 epoch   3/3" in out
    folder, expected = simulated.run_folder(tmp_path), simulated.run_folder(whole)
    losses = [pd.read_csv(run / "history_0.csv")["train_loss"] for run in (folder, expected)]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    assert_close(folder / "predictions_0.csv", expected / "predictions_0.csv")


@BOTH_WAYS
def test_a_checkpoint_predicts_and_is_explained_with_the_other(
    quick: Callable[..., Path], run_main: RunMain, tmp_path: Path, first: str, second: str
) -> None:
    folder = quick("--graph_backend", "pyg") if first == "pyg" else quick()
    checkpoint = ["--checkpoint", str(folder / "s_0_checkpoint.pt"), "--graph_backend", second]
    code, out, err = run_main([*checkpoint, "--output", str(tmp_path / "out.csv")], "predict")
    assert (code, err, notes(out)) == (0, "", [])
    expected = pd.read_csv(folder / "predictions_0.csv")
    found = pd.read_csv(tmp_path / "out.csv").set_index("slide_id").loc[expected["slide_id"]].reset_index()
    found.to_csv(tmp_path / "out.csv")
    assert_close(tmp_path / "out.csv", folder / "predictions_0.csv")
    slide = ["--slide", expected["slide_id"][0], "--draws", "0"]
    code, out, err = run_main([*checkpoint, *slide, "--output-dir", str(tmp_path / "pages")], "explain")
    assert (code, err, notes(out)) == (0, "", [])
    assert (tmp_path / "pages" / f"{expected['slide_id'][0]}.html").exists()


def test_it_has_no_effect_on_the_released_variant(simulated: SimulatedTask, tmp_path: Path, run_main: RunMain) -> None:
    options = simulated.options(tmp_path, "--dry_run", "--graph_backend", "pyg")
    assert notes(run_main(options)[1]) == []
    _, out, _ = run_main([*options, "--variant", "released"])
    assert notes(out) == ["note: --graph_backend has no effect on HiVE_MIL --variant released"]
