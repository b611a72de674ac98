"""main.py's options: those that train have an effect, the others say so."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import main
from tests.conftest import FaultsOf, RunMain, SimulatedTask
from tests.support.run_contents import CLASSES, notes, numbers, train_loss


def test_no_notes_without_reason(simulated: SimulatedTask, tmp_path: Path, run_main: RunMain) -> None:
    _, out, _ = run_main(simulated.options(tmp_path, "--dry_run", "--drop_out", "--bag_loss", "svm", "--tgdf", "none"))
    assert notes(out) == []
    _, out, _ = run_main(simulated.options(tmp_path, "--dry_run", "--variant", "released"))
    assert notes(out) == []


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_options_without_effect_say_so_once(
    simulated: SimulatedTask, tmp_path: Path, run_main: RunMain, variant: str
) -> None:
    given = ["--mode", "transformer", "--prototype_number", "8"]
    names = ["mode", "prototype_number"]
    if variant == "released":
        given += ["--drop-out", "--bag-loss", "svm", "--tgdf", "none", "--htcl", "instance_wise"]
        given += ["--hier_aggregator", "maa", "--hier_direction", "up"]
        names += ["drop_out", "bag_loss", "tgdf", "htcl", "hier_aggregator", "hier_direction"]
    code, out, _ = run_main(simulated.options(tmp_path, "--dry_run", "--variant", variant, *given))
    assert code == 0
    assert len(notes(out)) == len(names)
    for name in names:
        assert sum(f"--{name} " in line for line in notes(out)) == 1
    # the dry run ends before training; a run says them no more often
    if variant == "paper":
        _, out, _ = run_main(simulated.options(tmp_path, "--max_epochs", "1", *given))
        assert len(notes(out)) == len(names)


@pytest.mark.parametrize(
    ("option", "choices"),
    [
        (("--contrastive_lambda", "0.1"), ("--htcl", "none")),
        (("--filter_alpha", "0.1"), ("--tgdf", "none")),
        (("--hier_aggregator", "maa"), ("--hier_direction", "none")),
        (("--top_k_high", "3"), ("--scales", "low")),
        (("--top_k_low", "1"), ("--scales", "high")),
    ],
    ids=lambda words: " ".join(words),
)
def test_options_that_another_one_switches_off_say_so(
    simulated: SimulatedTask,
    tmp_path: Path,
    run_main: RunMain,
    quick: Callable[..., Path],
    option: tuple[str, ...],
    choices: tuple[str, ...],
) -> None:
    predictions = [(quick(*more) / "predictions_0.csv").read_bytes() for more in (choices, (*choices, *option))]
    assert predictions[0] == predictions[1]
    _, out, _ = run_main(simulated.options(tmp_path, "--dry_run", *option, *choices))
    assert len(notes(out)) == 1 and f"{option[0]} " in notes(out)[0]


def test_options_without_effect_have_none(quick: Callable[..., Path]) -> None:
    """The released variant with all of them gives the numbers of the released variant without."""
    plain = quick("--variant", "released")
    given = quick(
        *("--variant", "released", "--drop_out", "--bag_loss", "focal", "--tgdf", "none", "--htcl", "none"),
        *("--hier_aggregator", "sage", "--hier_direction", "none", "--mode", "x", "--prototype_number", "3"),
    )
    assert numbers(given) == numbers(plain)
    assert train_loss(plain) != train_loss(quick())


OPTIONS_WITH_EFFECT = [
    *[("--tgdf", choice) for choice in ("no_mask_propagation", "high_only", "none")],
    *[("--htcl", choice) for choice in ("instance_wise", "share_parent", "none")],
    *[("--hier_aggregator", choice) for choice in ("maa", "saa", "attention", "sage")],
    *[("--hier_direction", choice) for choice in ("up", "down", "none")],
    *[("--scales", choice) for choice in ("low", "high")],
    *[("--bag_loss", choice) for choice in ("focal", "svm")],
    *[("--text_format", choice) for choice in ("term", "explanation")],
    *[("--class-token-position", choice) for choice in ("front", "middle")],
    ("--class-specific-token",),
    ("--weighted_sample",),
    ("--drop_out",),
    ("--opt", "sgd"),
    ("--label_frac", "0.5"),
    ("--top_k_low", "1"),
    ("--top_k_high", "3"),
    ("--filter-alpha", "1"),
    ("--contrastive_lambda", "0.1"),
    ("--num-context-tokens", "4"),
    ("--reg", "0.1"),
    ("--variant", "released"),
    ("--variant", "released", "--class-specific-token"),
    ("--variant", "released", "--scales", "low"),
    ("--variant", "released", "--filter_alpha", "1"),
]


@pytest.mark.parametrize("options", OPTIONS_WITH_EFFECT, ids=" ".join)
def test_an_option_trains_and_has_an_effect(quick: Callable[..., Path], options: tuple[str, ...]) -> None:
    folder = quick(*options)
    history = pd.read_csv(folder / "history_0.csv")
    assert len(history) == 1
    assert np.isfinite(history[["train_loss", "train_acc", "val_loss", "val_auc", "val_hit_ratio"]].to_numpy()).all()
    predictions = pd.read_csv(folder / "predictions_0.csv")
    assert np.isfinite(predictions[[f"prob_{name}" for name in CLASSES]].to_numpy()).all()
    others = [("--variant", "released")] if options[:2] == ("--variant", "released") and len(options) > 2 else []
    for other in [(), *others]:
        assert train_loss(folder) != train_loss(quick(*other))
    assert (folder / "predictions_0.csv").read_bytes() != (quick() / "predictions_0.csv").read_bytes()


def test_ablations_differ_from_each_other(quick: Callable[..., Path]) -> None:
    for name in ("--tgdf", "--htcl", "--hier_aggregator", "--hier_direction", "--scales", "--bag_loss"):
        losses = [train_loss(quick(*options)) for options in OPTIONS_WITH_EFFECT if options[0] == name]
        assert len({*losses, train_loss(quick())}) == len(losses) + 1, name


def test_label_frac_takes_a_share_of_every_class(simulated: SimulatedTask, quick: Callable[..., Path]) -> None:
    labels = pd.read_csv(simulated.root / "simulated.csv", index_col="slide_id")["label"]
    written = pd.read_csv(quick("--label_frac", "0.5") / "splits_0.csv", index_col=0)
    given = pd.read_csv(simulated.split_dir / "splits_0.csv", index_col=0)
    train = written["train"].dropna()
    assert set(train) < set(given["train"].dropna())
    assert labels[train].value_counts().to_dict() == dict.fromkeys(CLASSES, 2)
    for name in ("val", "test"):
        assert written[name].dropna().tolist() == given[name].dropna().tolist()


def test_testing_is_a_quick_try(simulated: SimulatedTask, tmp_path: Path) -> None:
    main.main(simulated.options(tmp_path, "--testing", "--max_epochs", "50"))
    folder = simulated.run_folder(tmp_path)
    assert not folder.exists()  # the real run's place stays free
    folder = folder.with_name(f"{folder.name}_testing")
    labels = pd.read_csv(simulated.root / "simulated.csv", index_col="slide_id")["label"]
    for k in range(2):
        assert len(pd.read_csv(folder / f"history_{k}.csv")) == 2
        split = pd.read_csv(folder / f"splits_{k}.csv", index_col=0)
        for name in ("train", "val", "test"):
            assert labels[split[name]].value_counts().to_dict() == dict.fromkeys(CLASSES, 2)
        assert len(pd.read_csv(folder / f"predictions_{k}.csv")) == 8
    assert (folder / "results.csv").exists()


def test_early_stopping_stops(simulated: SimulatedTask, tmp_path: Path) -> None:
    """A learning rate of nothing: the first epoch stays the best one. Every model stops in the same loop."""
    options = ["--model_type", "ABMIL", "--lr", "0", "--max_epochs", "30", "--early_stopping", "--k_end", "1"]
    main.main(simulated.options(tmp_path, *options))
    (written,) = tmp_path.rglob("summary_partial_0_1.csv")
    summary = pd.read_csv(written)
    assert summary[["best_epoch", "epochs"]].iloc[0].tolist() == [0, 11]


def test_log_data(quick: Callable[..., Path]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = quick("--log_data")
    events = EventAccumulator(str(folder / "tensorboard" / "fold_0"))
    events.Reload()
    assert [event.value for event in events.Scalars("train_loss")] == pytest.approx([train_loss(folder)], rel=1e-6)
    assert numbers(folder) == numbers(quick())


def test_bf16_is_close_to_fp32(quick: Callable[..., Path]) -> None:
    fp32, bf16 = (pd.read_csv(quick(*more) / "predictions_0.csv") for more in ((), ("--precision", "bf16")))
    columns = [f"prob_{name}" for name in CLASSES]
    difference = np.abs(fp32[columns].to_numpy() - bf16[columns].to_numpy()).max()
    assert 0 < difference < 0.15  # eight training steps apart
    assert train_loss(quick("--precision", "bf16")) == pytest.approx(train_loss(quick()), abs=0.02)


@pytest.mark.parametrize(
    "options",
    [
        *[("--lr", "-1"), ("--lr", "nan"), ("--reg", "-1"), ("--reg", "nan"), ("--filter-alpha", "nan")],
        *[("--contrastive-lambda", "nan"), ("--num-context-tokens", "100"), ("--label_frac", "nan")],
    ],
    ids=" ".join,
)
def test_impossible_numbers_are_refused(
    simulated: SimulatedTask, tmp_path: Path, run_main: RunMain, options: tuple[str, ...]
) -> None:
    """Before anything is written: a config.json left behind would refuse the corrected run."""
    code, out, err = run_main(simulated.options(tmp_path, "--max_epochs", "1", *options))
    message = err.rpartition("error: ")[2].replace("-", "_")
    assert code == 2, out + err
    assert options[0].removeprefix("--").replace("-", "_") in message
    assert not simulated.run_folder(tmp_path).exists()


def test_any_integer_is_a_seed(simulated: SimulatedTask, tmp_path: Path, run_main: RunMain) -> None:
    options = simulated.options(tmp_path, "--max_epochs", "1", "--k_end", "1", "--seed", "-1", "--label_frac", "0.5")
    assert run_main(options)[0] == 0


def test_feature_dim_is_checked(
    simulated: SimulatedTask, tmp_path: Path, run_main: RunMain, faults_of: FaultsOf
) -> None:
    assert run_main(simulated.options(tmp_path, "--dry_run", "--feature_dim", "16"))[0] == 0
    (fault,) = faults_of(simulated.options(tmp_path, "--dry_run", "--feature_dim", "512"))
    assert (fault.code, fault.where) == ("option.value", "--feature_dim 512")
