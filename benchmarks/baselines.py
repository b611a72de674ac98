"""Times every model on generated slides, beside HiVE-MIL: the paper's Table 17 on this machine.

    python -m benchmarks.baselines                     all models, 850 and 1,880 parents: some 15 minutes on two cores
    python -m benchmarks.baselines --models ABMIL WiKG --parents 850

A slide has 16 children a parent, of which 6 % are missing; the flat bag is of the real ones. Times are medians of calls
in turn; an epoch is 32 training steps and 312 evaluated slides, computed from them. Memory is measured as in
benchmarks/model.py.
"""

import argparse
import sys
from collections.abc import Callable, Sequence

import torch

from benchmarks.generated import DIM, WORDS, clip_tower, slide
from benchmarks.measure import evaluation_or_step, header, medians, peak_elsewhere, peak_of, table, work_as_main
from benchmarks.model import ROUNDS
from models.build import KINDS, build_model
from utils.config import Config
from utils.errors import run_script
from utils.interface import Bag, SlideModel
from utils.model_types import MODEL_TYPES

NUM_CLASSES, TRAINING, VALIDATION = 2, 32, 312
VARIANTS = {"HiVE_MIL released": ("HiVE_MIL", "released")}


def build(name: str, device: torch.device) -> SlideModel:
    """The model, as main.py would, for texts of some 20 words."""
    model_type, variant = VARIANTS.get(name, (name, "paper"))
    config = Config(model_type=model_type, variant=variant)
    torch.manual_seed(0)
    number = {"HiVE_MIL": (8, 24), "MSCPT": (8, 24), "ViLa_MIL": (2, 2), None: (0, 0)}[config.text_form]
    texts = [" ".join(WORDS[(7 * i + j) % len(WORDS)] for j in range(18)) for i in range(sum(number))]
    tower = clip_tower() if config.text_form else None
    return build_model(config, tower, texts[: number[0]], texts[number[0] :], NUM_CLASSES, DIM).to(device)


def bag_for(name: str, num_parents: int, device: torch.device, seed: int = 0, width: int = DIM) -> Bag:
    """The slide of a seed in the model's form."""
    from dataclasses import replace

    model_type, _ = VARIANTS.get(name, (name, "paper"))
    bag = slide(num_parents, device, seed, width)
    form = KINDS[model_type].form(Config(model_type=model_type))
    if form == "hierarchy":
        return bag
    low = bag.low_features if form == "both" else bag.low_features[:0]
    none = {"high_features": low.new_zeros(len(low), 0, width), "child_mask": bag.child_mask[: len(low), :0]}
    return replace(bag, low_features=low, patch_features=bag.patches.clone(), **none)


def work(model: SlideModel, bag: Bag, task: str) -> Callable[[], None]:
    model.train(task == "training")
    return evaluation_or_step(model, lambda: model(bag).loss, task)


def peak_memory(name: str, task: str, num_parents: int, device: torch.device) -> float:
    """GB above what the model and the slide take, in this process."""
    model = build(name, device)
    work(model, bag_for(name, 50, device), task)()
    return peak_of(work(model, bag_for(name, num_parents, device), task), device)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*MODEL_TYPES, *VARIANTS]
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--parents", nargs="+", type=int, default=[850, 1880])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--figure", nargs=3, help=argparse.SUPPRESS)  # one figure of memory, for a fresh process
    options = parser.parse_args(argv)
    work_as_main(options.threads)
    device = torch.device(options.device)
    if options.figure:
        name, task, parents = options.figure
        print(peak_memory(name, task, int(parents), device))
        return
    print(header(device, options.threads))
    for parents in options.parents:
        rows = []
        for name in options.models:
            bag, seconds = bag_for(name, parents, device), {}
            for task in ("evaluation", "training"):
                call = work(build(name, device), bag, task)
                seconds[task] = medians({task: call}, device, options.rounds)[task].seconds
            epoch = TRAINING * seconds["training"] + VALIDATION * seconds["evaluation"]
            peaks = [
                peak_elsewhere(options, name, task, str(parents), module="benchmarks.baselines") for task in seconds
            ]
            rows.append([name, *seconds.values(), epoch, *peaks])
        columns = ["model", "evaluation s", "training s", "epoch s", "evaluation GB", "training GB"]
        table(f"{parents:,} parents", columns, rows)


if __name__ == "__main__":
    sys.exit(run_script(main))
