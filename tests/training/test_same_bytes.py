"""Training at the size of PLIP's text tower, on two threads: repeated or resumed, it writes the same bytes.

PyTorch spreads operations on tensors of more than 32,768 numbers over threads; smaller ones show nothing. The tower has
PLIP's width, heads and vocabulary, and two of its twelve equal layers: more would take minutes.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path

import pytest
import torch

import training.loop
from benchmarks.baselines import VARIANTS, bag_for
from benchmarks.generated import DIM, clip_tower
from datasets.bag_cache import BagCache
from datasets.folders import FeatureFolders
from datasets.splits import Split
from datasets.task import Slide
from models.baselines import transmil
from models.build import build_model
from models.vlms import TextSide
from tests.support.run_contents import files_below
from training.fold import run_fold
from training.run_folder import RunFolder
from training.run_record import RunRecord
from utils.config import Config
from utils.model_types import MODEL_TYPES
from utils.reproducibility import make_deterministic, seed_everything

pytestmark = pytest.mark.slow

PARENTS = 12  # with 16 children each, of which some are missing
FEWER_PARENTS = {"HiVE_MIL released": 6}  # a number for each of their edges to texts is enough
LANDMARKS = 128  # of TransMIL: its products of landmarks are 8 x 128 x 128
CLASSES = ["A", "B"]
TEXTS = [f"nests of polygonal tumour cells with clear cytoplasm, number {number}" for number in range(4)]
CONTROL_REPEATS = 6


@cache
def tower() -> TextSide:
    return clip_tower(layers=2)


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(2)
    make_deterministic()
    yield
    torch.set_num_threads(before[0])
    torch.use_deterministic_algorithms(before[1])


def train(name: str, folder: Path, epochs: int = 2, stop: bool = False, resume: bool = False) -> dict[str, bytes]:
    """Two slides, one to validate and one to test: -> the files of the fold. stop: end it behind the first epoch."""
    model_type, variant = VARIANTS.get(name, (name, "paper"))
    config = Config(model_type=model_type, variant=variant, max_epochs=epochs, lr=1e-3, drop_out=True, resume=resume)
    slides = [Slide(f"slide_{number}", f"case_{number}", number % 2) for number in range(4)]
    split = Split(0, slides[:2], slides[2:3], slides[3:])
    bags = BagCache(FeatureFolders(folder, "task", "plip", 5, 20), DIM, 10**9)
    for number in range(4):
        bags.put(bag_for(name, FEWER_PARENTS.get(name, PARENTS), torch.device("cpu"), seed=number))
    needed: tuple[TextSide | None, list[str], list[str]]
    needed = (tower(), TEXTS[:2], TEXTS[2:]) if config.text_form else (None, [], [])
    seed_everything(config.seed)  # behind the tower, which draws its weights when it is made
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transmil, "TransMIL", partial(transmil.TransMIL, landmarks=LANDMARKS))
        model = build_model(config, *needed, len(CLASSES), DIM)
    run = RunFolder(folder)
    run.open(RunRecord(config.to_dict(), CLASSES, DIM, {}, {}, {}))
    with pytest.MonkeyPatch.context() as patch:
        if stop:
            patch.setattr(training.loop, "save_state", _save_and_stop)
        with pytest.raises(KeyboardInterrupt) if stop else nullcontext():
            run_fold(config, model, bags, split, CLASSES, run)
    return files_below(folder)


save = training.loop.save_state


def _save_and_stop(*arguments: object) -> None:
    save(*arguments)  # type: ignore[arg-type]
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", [*MODEL_TYPES, *VARIANTS])
def test_repeated_and_resumed_runs_write_the_same_bytes(name: str, tmp_path: Path) -> None:
    """The second run repeats the first epoch, is stopped there, and goes on in a new model."""
    whole = train(name, tmp_path / "whole")
    assert {"s_0_checkpoint.pt", "predictions_0.csv", "history_0.csv", "fold_0.json"} <= set(whole)
    stopped = train(name, tmp_path / "stopped", stop=True)
    assert "resume_0.pt" in stopped and "fold_0.json" not in stopped
    resumed = train(name, tmp_path / "stopped", resume=True)
    assert [file for file in whole if resumed.get(file) != whole[file]] == [] and set(resumed) == set(whole)


def test_without_deterministic_algorithms_runs_differ(tmp_path: Path) -> None:
    """The test above can fail. Threads that happen to take turns may give equal bytes: the test is skipped then."""
    torch.use_deterministic_algorithms(False)
    found = set()
    for repeat in range(CONTROL_REPEATS):
        found.add(train("HiVE_MIL", tmp_path / str(repeat), epochs=1)["s_0_checkpoint.pt"])
        if len(found) > 1:
            return
    pytest.skip(f"{CONTROL_REPEATS} repeats happened to be equal")
