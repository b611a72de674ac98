"""Times the model against the oracle (benchmarks/oracle.py) on generated slides, and prints tables in Markdown.

    python -m benchmarks.model                     all tables: about 40 minutes on two cores
    python -m benchmarks.model --tables evaluation training --parents 850

Every row is measured in one run, the candidates taking turns; times are medians. Memory on a CPU is the peak of the
resident set above what it was before the call, in a fresh process for each figure; on CUDA, of the allocated memory.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.generated import DIM, NUM_CLASSES, WORDS, clip_tower, slide
from benchmarks.measure import evaluation_or_step, header, medians, peak_elsewhere, peak_of, table, timed, work_as_main
from benchmarks.oracle import Oracle
from models.build import build_model
from models.hive_mil import HiveMIL
from models.released.message_passing import ReleasedNetwork
from utils.config import Config
from utils.errors import run_script
from utils.interface import Bag

PARENTS = (300, 850, 1880, 2633)
GROWTH = (1250, 2500, 5000, 10_000, 20_000)
FOLD_PARENTS, FOLD = 850, {"training": 32, "validation": 312, "test": 312}
ROUNDS = 5
TASKS = ("evaluation", "training")


def build(variant: str, device: torch.device, graph_backend: str = "blocked") -> HiveMIL:
    """A model of 2 classes, 4 low and 12 high texts each, of published length: 40 to 60 tokens with 16 of context.

    The texts of a random tower are all alike; its projection is set so that they are not, and nearly all parents are
    retained, as many as there can be work for.
    """
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)

    def description() -> str:
        length = int(torch.randint(12, 22, (1,), generator=generator))
        return " ".join(WORDS[i] for i in torch.randint(len(WORDS), (length,), generator=generator).tolist())

    texts = [description() for _ in range(32)]
    tower = clip_tower()
    model = build_model(Config(variant=variant, graph_backend=graph_backend), tower, texts[:8], texts[8:], NUM_CLASSES)
    assert isinstance(model, HiveMIL)
    weight = tower.text_projection.weight
    nn.init.eye_(weight)
    with torch.no_grad():
        states = torch.cat(model.prompts())
        projection = torch.linalg.pinv(states) @ torch.randn(states.shape, generator=generator)
        weight.copy_(projection if variant == "released" else projection.t())
    model.prompts.forget()
    return model.to(device)


def work(model: HiveMIL, bag: Bag, task: str, who: str = "ours") -> Callable[[], Any]:
    """What is measured, for one slide: "evaluation" (texts cached, those of the "oracle" as well, but not those of the
    "encoding oracle") or "training" (a step's forward and backward pass, the texts' with it)."""
    if who == "ours":
        run: Callable[[], Tensor | None] = lambda: model(bag).loss  # noqa: E731
    else:
        with torch.no_grad():
            is_released = isinstance(model.network, ReleasedNetwork)
            oracle = Oracle(model, is_released, keep_texts=task == "evaluation" and who == "oracle")
        run = lambda: oracle(bag)[1]  # noqa: E731
    return evaluation_or_step(model, run, task)


def floor(bag: Bag) -> Callable[[], Any]:
    """Two (P*C, D) x (D, D) products into memory that is there."""
    children = bag.high_features.flatten(0, 1)
    weight, out = torch.randn(DIM, DIM, device=children.device), torch.empty_like(children)

    def call() -> None:
        for _ in range(2):
            torch.mm(children, weight, out=out)

    return call


def peak_memory(variant: str, task: str, num_parents: int, who: str, device: torch.device) -> float:
    """GB above what the model and the slide take, measured in this process. who: as in ``work``, or "pyg"."""
    model = build(variant, device, "pyg" if who == "pyg" else "blocked")
    who = "ours" if who == "pyg" else who
    bag = slide(num_parents, device)
    work(model, slide(50, device), task, who)()  # what is loaded at the first call
    return peak_of(work(model, bag, task, who), device)


def slides_table(options: argparse.Namespace, device: torch.device, variant: str, task: str) -> None:
    """Time and memory of one slide, against the oracle and the floor; in evaluation, against the oracle with its texts
    cached, and as the released code has it, which encodes the prompts for every slide."""
    model, rows = build(variant, device), []
    oracles = ("oracle", "encoding oracle") if task == "evaluation" else ("oracle",)
    for parents in options.parents:
        bag = slide(parents, device)
        candidates = {who: work(model, bag, task, who) for who in ("ours", *oracles)}
        spent = medians({**candidates, "floor": floor(bag)}, device, options.rounds)
        seconds = {name: median.seconds for name, median in spent.items()}
        ours, oracle = (peak_elsewhere(options, variant, task, str(parents), who) for who in ("ours", "oracle"))
        against = [figure for name in oracles for figure in (seconds[name], seconds[name] / seconds["ours"])]
        over = seconds["ours"] / seconds["floor"]
        rows.append([parents, seconds["ours"], *against, over, ours, oracle, ours / oracle])
    names = [column for name in oracles for column in (f"{name} s", "times faster")]
    columns = ["parents", "s", *names, "times the floor", "GB", "oracle GB", "share of its memory"]
    table(f"{task}, {variant} variant", columns, rows)


def backends_table(options: argparse.Namespace, device: torch.device) -> None:
    """Both ways of computing the graph layers, ``--graph_backend``."""
    models, rows = {name: build("paper", device, name) for name in ("blocked", "pyg")}, []
    for task in TASKS:
        for parents in options.parents:
            bag = slide(parents, device)
            spent = medians({name: work(model, bag, task) for name, model in models.items()}, device, options.rounds)
            blocked, pyg = spent["blocked"], spent["pyg"]
            memory = [peak_elsewhere(options, "paper", task, str(parents), who) for who in ("ours", "pyg")]
            times = [blocked.wall, pyg.wall, pyg.wall / blocked.wall, blocked.cpu, pyg.cpu, pyg.cpu / blocked.cpu]
            rows.append([f"{task}, {parents:,}", *times, *memory, memory[1] / memory[0]])
    columns = ["task, parents", "blocked s", "pyg s", "ratio", "blocked CPU s", "pyg CPU s", "ratio"]
    table("graph backends, paper variant", [*columns, "blocked GB", "pyg GB", "ratio"], rows)


def prompts_table(options: argparse.Namespace, device: torch.device) -> None:
    """32 prompts through the tower."""
    model = build("paper", device)
    oracle = Oracle(model)

    def step(encode: Callable[[], tuple[Tensor, Tensor]]) -> None:
        low, high = encode()
        (low.square().sum() + high.square().sum()).backward()

    def no_step(encode: Callable[[], tuple[Tensor, Tensor]]) -> None:
        with torch.no_grad():
            encode()

    def ours() -> tuple[Tensor, Tensor]:
        model.prompts.forget()
        texts: tuple[Tensor, Tensor] = model.prompts()
        return texts

    rows = []
    for name, run in (("forward", no_step), ("forward and backward", step)):
        spent = medians({"ours": partial(run, ours), "oracle": partial(run, oracle.encode)}, device, options.rounds)
        mine, theirs = spent["ours"].seconds, spent["oracle"].seconds
        rows.append([name, mine, theirs, theirs / mine])
    table("text encoding, 32 prompts", ["", "s", "oracle s", "times faster"], rows)


def fold_table(options: argparse.Namespace, device: torch.device) -> None:
    """One epoch of training, validation and test; the oracle's time is that of a few slides times their number."""
    model, rows, totals = build("paper", device), [], [0.0, 0.0]
    few = [slide(FOLD_PARENTS, device, seed) for seed in range(4)]
    for part, number in FOLD.items():
        task = "training" if part == "training" else "evaluation"
        step = lambda: [work(model, few[i % 4], task)() for i in range(number)]  # noqa: B023, E731
        ours = timed(step, device).seconds
        oracle = statistics.median(timed(work(model, bag, task, "oracle"), device).seconds for bag in few) * number
        totals = [totals[0] + ours, totals[1] + oracle]
        rows.append([part, number, ours, oracle, oracle / ours])
    rows.append(["all", sum(FOLD.values()), *totals, totals[1] / totals[0]])
    table(
        f"a fold, one epoch, {FOLD_PARENTS} parents a slide", ["part", "slides", "s", "oracle s", "times faster"], rows
    )


def growth_table(options: argparse.Namespace, device: torch.device) -> None:
    model, rows = build("paper", device), []
    for parents in GROWTH:
        bag = slide(parents, device)
        spent = medians({task: work(model, bag, task) for task in TASKS}, device, 1)
        memory = [peak_elsewhere(options, "paper", task, str(parents), "ours") for task in TASKS]
        seconds = [median.seconds for median in spent.values()]
        rows.append([parents, bag.high_features.numel() * 4 / 1e9, *seconds, *memory])
    columns = ["parents", "children GB", "evaluation s", "training s", "evaluation GB", "training GB"]
    table("growth, paper variant", columns, rows)


TABLES: dict[str, Callable[[argparse.Namespace, torch.device], None]] = {
    "evaluation": lambda options, device: slides_table(options, device, "paper", "evaluation"),
    "training": lambda options, device: slides_table(options, device, "paper", "training"),
    "backends": backends_table,
    "text": prompts_table,
    "growth": growth_table,
    "fold": fold_table,
    "released_evaluation": lambda options, device: slides_table(options, device, "released", "evaluation"),
    "released_training": lambda options, device: slides_table(options, device, "released", "training"),
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--parents", nargs="+", type=int, default=PARENTS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--figure", nargs=4, help=argparse.SUPPRESS)  # one figure of memory, for a fresh process
    options = parser.parse_args(argv)
    work_as_main(options.threads)
    device = torch.device(options.device)
    if options.figure:
        variant, task, parents, who = options.figure
        print(peak_memory(variant, task, int(parents), who, device))
        return
    print(header(device, options.threads))
    for chosen in options.tables:
        TABLES[chosen](options, device)


if __name__ == "__main__":
    sys.exit(run_script(main))
