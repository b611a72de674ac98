"""Every model trains, predicts and is explained on another device, where tensors of the CPU are refused.

The results are those of the CPU, so that nothing is computed on the device that is not computed there.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import datasets.extract  # noqa: F401  (modules that choose a device are imported before it is pretended)
import training.inputs  # noqa: F401
import utils.reproducibility
from benchmarks.pretend_device import Counts, PretendedTensor, pretend_device
from models.build import build_model
from tests.conftest import RunMain, SimulatedTask
from tests.support.random_slide import random_bag
from tests.support.random_towers import random_tower
from tests.support.small_transmil import make_transmil_small
from training.evaluation import Predictions, evaluate
from training.loop import EpochSampler, FoldFiles, fit
from utils.config import Config
from utils.interface import Bag, SlideModel
from utils.model_types import MODEL_TYPES

pytestmark = pytest.mark.usefixtures("blank_figures")

CPU, WIDTH, NUM_CLASSES = torch.device("cpu"), 16, 2
TEXTS = {"HiVE_MIL": (2, 2), "ViLa_MIL": (1, 1), "MSCPT": (2, 3), None: (0, 0)}  # low a class, high a low
HIVE_MIL: list[dict[str, Any]] = [
    {},
    {"variant": "released"},
    {"variant": "released", "tgdf": "none", "class_specific_token": True},
    {"tgdf": "no_mask_propagation", "hier_aggregator": "maa", "htcl": "instance_wise", "bag_loss": "svm"},
    {"tgdf": "high_only", "hier_aggregator": "saa", "hier_direction": "up", "htcl": "share_parent"},
    {"tgdf": "none", "hier_aggregator": "attention", "hier_direction": "down", "class_token_position": "middle"},
    {"hier_aggregator": "sage", "htcl": "none", "class_token_position": "front", "opt": "sgd", "lr": 1e-2},
    {"scales": "low", "hier_direction": "none", "class_specific_token": True},
    {"scales": "high", "bag_loss": "focal"},
]
"""Each choice of each option once."""
OTHERS: list[dict[str, Any]] = [
    *({"model_type": name} for name in MODEL_TYPES if name != "HiVE_MIL"),
    {"model_type": "DSMIL", "two_scale": True},
    {"model_type": "CLAM_MB", "inst_loss": "ce", "no_subtyping": True},
    {"model_type": "DTFD_MIL", "num_mean_inference": 3},
    {"model_type": "WiKG", "readout": "mean"},
]


def config_of(options: dict[str, Any]) -> Config:
    return Config(
        **{
            "num_context_tokens": 4,
            "num_low_mag_texts": 2,
            "num_high_mag_subtexts": 2,
            "max_epochs": 1,
            "lr": 1e-3,
            **options,
        }
    )


def build(config: Config, tower: str = "clip") -> SlideModel:
    low, high = TEXTS[config.text_form]
    numbers = NUM_CLASSES * low, NUM_CLASSES * low * high
    texts = [
        [f"a slide of kind{i % 5} at scale{scale} shows trait{i}" for i in range(numbers[scale])] for scale in (0, 1)
    ]
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        make_transmil_small(patch)
        return build_model(config, random_tower(tower) if config.text_form else None, *texts, NUM_CLASSES, WIDTH)


def slides(numbers: range) -> list[Bag]:
    bags = [random_bag(number, dim=WIDTH, label=number % NUM_CLASSES) for number in numbers]
    return [bag.map(lambda features: features if features.dtype == torch.bool else features.float()) for bag in bags]


def train(model: SlideModel, config: Config, folder: Path) -> Predictions:
    """Epochs over two slides, two to choose the best epoch by, and what the model then says of another one."""
    folder.mkdir(exist_ok=True)
    files = FoldFiles(folder / "checkpoint.pt", folder / "history.csv", folder / "state.pt", folder / "tensorboard")
    bags = slides(range(2))
    sampler = EpochSampler([bag.label for bag in bags], seed=1)
    progress = fit(model, bags, slides(range(2, 4)), sampler, config, files, "fold 0", {"fold": "0"})
    assert progress.epochs == config.max_epochs
    return evaluate(model, slides(range(4, 5)), next(model.parameters()).device)


def assert_alike(found: Predictions, expected: Predictions) -> None:
    torch.testing.assert_close(found.probabilities, expected.probabilities, atol=1e-4, rtol=0)
    assert found.loss == pytest.approx(expected.loss, abs=1e-3)


@pytest.mark.parametrize("options", [*HIVE_MIL, *OTHERS], ids=lambda options: " ".join(map(str, options.values())))
def test_a_model_trains_and_predicts(options: dict[str, Any], tmp_path: Path) -> None:
    config = config_of(options)
    expected = train(build(config), config, tmp_path / "cpu")
    with pretend_device() as (device, counts):
        model = build(config).to(device)
        assert all(isinstance(tensor, PretendedTensor) for tensor in model.state_dict().values())
        assert_alike(train(model, config, tmp_path / "device"), expected)
        assert counts.calls > 100
    for name in ("checkpoint.pt", "state.pt"):
        ours, others = (torch.load(tmp_path / place / name, weights_only=True) for place in ("device", "cpu"))
        assert ours.keys() == others.keys()


def test_a_causal_tower_and_one_that_is_not(tmp_path: Path) -> None:
    """The tower of the test above is CLIP's."""
    config = config_of({})
    expected = train(build(config, "conch"), config, tmp_path / "cpu")
    with pretend_device() as (device, _):
        assert_alike(train(build(config, "conch").to(device), config, tmp_path / "device"), expected)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_dropout(variant: str, tmp_path: Path) -> None:
    """Another device draws other numbers, so nothing is compared."""
    config = config_of({"drop_out": True, "variant": variant})
    with pretend_device() as (device, _):
        found = train(build(config).to(device), config, tmp_path)
    assert torch.tensor(found.probabilities).isfinite().all()


def test_an_interrupted_fold_goes_on(tmp_path: Path) -> None:
    """The optimiser's state is read on the CPU and goes to the device."""
    config = config_of({"max_epochs": 2})
    expected = train(build(config), config, tmp_path / "cpu")
    with pretend_device() as (device, _):
        train(build(config).to(device), config_of({"max_epochs": 1}), tmp_path / "device")
        going_on = config_of({"max_epochs": 2, "resume": True})
        assert_alike(train(build(config).to(device), going_on, tmp_path / "device"), expected)


@pytest.fixture(params=[(), ("--variant", "released")], ids=["paper", "released"])
def options(request: pytest.FixtureRequest) -> tuple[str, ...]:
    given: tuple[str, ...] = request.param
    return given


@pytest.fixture
def on_cpu(quick: Callable[..., Path], options: tuple[str, ...]) -> Path:
    """The run's folder; ``quick`` keeps it for other tests, so that it is trained before the device is pretended."""
    return quick(*options)


@pytest.fixture
def everywhere(on_cpu: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    """``--device`` chooses the pretended device, whatever it names, in the modules that are imported by now."""
    original = utils.reproducibility.choose_device
    with pretend_device() as (device, counts):
        for module in list(sys.modules.values()):
            if getattr(module, "choose_device", None) is original:
                monkeypatch.setattr(module, "choose_device", lambda name: device)
        yield counts


def test_a_run_is_trained_predicted_and_explained(
    simulated: SimulatedTask,
    on_cpu: Path,
    everywhere: Counts,
    run_main: RunMain,
    tmp_path: Path,
    options: tuple[str, ...],
) -> None:
    """Through the scripts; predictions and explanations are those of the run that was trained on the CPU."""
    given = simulated.options(tmp_path, "--max_epochs", "1", "--k_end", "1", *options)
    code, out, err = run_main(given)
    assert (code, err) == (0, "") and "on pretended:0" in out
    run = simulated.run_folder(tmp_path)
    tables = [pd.read_csv(folder / "predictions_0.csv") for folder in (run, on_cpu)]
    pd.testing.assert_frame_equal(*tables, atol=1e-4, rtol=0)
    checkpoint = str(run / "s_0_checkpoint.pt")
    slides = pd.read_csv(simulated.root / "simulated.csv").head(2)
    slides.to_csv(tmp_path / "slides.csv", index=False)
    asked = ["--checkpoint", checkpoint, "--dataset_csv", str(tmp_path / "slides.csv")]
    code, _, err = run_main([*asked, "--output", str(tmp_path / "found.csv")], "predict")
    assert (code, err) == (0, "")
    before = everywhere.calls
    slide = ["--checkpoint", checkpoint, "--slide", "SIM-0003", "--draws", "1", "--output-dir", str(tmp_path / "page")]
    code, _, err = run_main(slide, "explain")
    assert (code, err) == (0, "")
    assert everywhere.calls > before + 100
