"""FLOPs, time and memory of every model on generated slides, beside HiVE-MIL: the paper's Table 17 on this machine.

    python -m benchmarks.baselines                           both slides of the table, evaluation
    python -m benchmarks.baselines --models ABMIL WiKG --slides 850 --tasks evaluation training --device cuda

A slide is P+C, its patches at 5x and 20x; of P alone, 6 % of 16 children for each parent are missing. The flat bag is
of the real ones. FLOPs are those of one call as PyTorch's FlopCounterMode counts them: matrix products, convolutions
and scaled dot-product attention, a multiplication and an addition as two; all else counts nothing. Texts are encoded
before an evaluation, and in a training step. Times are medians of calls; on a CPU the seconds of the processor over all
threads stand beside those by the clock. Memory is measured as in benchmarks/model.py.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.generated import DIM, WORDS, clip_tower, slide
from benchmarks.measure import evaluation_or_step, header, medians, peak_elsewhere, peak_of, table, work_as_main
from benchmarks.model import ROUNDS, TASKS
from models.build import KINDS, build_model
from utils.config import Config
from utils.errors import run_script
from utils.interface import Bag, SlideModel
from utils.model_types import MODEL_TYPES

NUM_CLASSES = 2
SLIDES = ("1880+28249", "2633+40777")
"""Of the paper's Table 17: patches at 5x and 20x."""
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


def bag_for(name: str, size: int | str, device: torch.device, seed: int = 0) -> Bag:
    """The slide of a seed in the model's form. size: P or P+C."""
    from dataclasses import replace

    model_type, _ = VARIANTS.get(name, (name, "paper"))
    parents, _, children = str(size).partition("+")
    bag = slide(int(parents), device, seed, int(children) if children else None)
    form = KINDS[model_type].form(Config(model_type=model_type))
    if form == "hierarchy":
        return bag
    low = bag.low_features if form == "both" else bag.low_features[:0]
    none = {"high_features": low.new_zeros(len(low), 0, DIM), "child_mask": bag.child_mask[: len(low), :0]}
    return replace(bag, low_features=low, patch_features=bag.patches.clone(), **none)


def work(model: SlideModel, bag: Bag, task: str) -> Callable[[], None]:
    model.train(task == "training")
    return evaluation_or_step(model, lambda: model(bag).loss, task)


class WholeCall(nullcontext[None]):
    """In place of the counter's ModuleTracker, which hooks into every module and cannot where views made without
    gradients are given to one: the whole call is one module."""

    parents = ("Global",)


def _flops_of_addmm(to: torch.Size, left: torch.Size, right: torch.Size, *_: object, **more: object) -> int:
    """Of left @ right, added to what is there; shapes in place of tensors."""
    return 2 * left[0] * left[1] * right[1]


def gigaflops(call: Callable[[], None]) -> float:
    """Of one call, in 10^9. The counter by itself passes over products that are added in place."""
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _flops_of_addmm})
    counter.mod_tracker = WholeCall()  # type: ignore[assignment]
    with counter:
        call()
    return counter.get_total_flops() / 1e9


def peak_memory(name: str, task: str, size: str, device: torch.device) -> float:
    """GB above what the model and the slide take, in this process."""
    model = build(name, device)
    work(model, bag_for(name, "50", device), task)()
    return peak_of(work(model, bag_for(name, size, device), task), device)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*MODEL_TYPES, *VARIANTS]
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--slides", nargs="+", default=SLIDES, metavar="P[+C]")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS[:1])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--figure", nargs=3, help=argparse.SUPPRESS)  # one figure of memory, for a fresh process
    options = parser.parse_args(argv)
    work_as_main(options.threads)
    device = torch.device(options.device)
    if options.figure:
        print(peak_memory(*options.figure, device))
        return
    print(header(device, options.threads))
    for size in options.slides:
        for task in options.tasks:
            rows = []
            for name in options.models:
                call = work(build(name, device), bag_for(name, size, device), task)
                flops = gigaflops(call)  # also the first call, which encodes the texts
                flops = gigaflops(call) if task == "evaluation" else flops
                spent = medians({task: call}, device, options.rounds)[task]
                peak = peak_elsewhere(options, name, task, size, module="benchmarks.baselines")
                rows.append([name, flops, spent.wall, spent.cpu, peak])
            table(f"{task}, {size} patches", ["model", "GFLOPs", "s", "CPU s", "GB"], rows)


if __name__ == "__main__":
    sys.exit(run_script(main))
