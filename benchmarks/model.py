"""Times the model against the oracle (benchmarks/oracle.py) on generated slides, and prints tables in Markdown.

    python -m benchmarks.model                     all tables: about 40 minutes on two cores
    python -m benchmarks.model --tables evaluation training --parents 850

Every row is measured in one run, the candidates taking turns; times are medians. Memory on a CPU is the peak of the
resident set above what it was before the call, in a fresh process for each figure; on CUDA, of the allocated memory.
"""

import argparse
import ctypes
import gc
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import utils.torchvision_compat  # noqa: F401  (before transformers)
from benchmarks.oracle import Oracle
from models.build import build_model
from models.hive_mil import HiveMIL
from models.text_towers import ClipTextTower, ClipTokenizer
from utils.config import Config
from utils.interface import Bag
from utils.reproducibility import versions

DIM, NUM_CHILDREN, NUM_CLASSES = 512, 16, 2
MISSING = 0.06  # of the children, as in a slide of 1,880 and 28,249 patches
PARENTS = (300, 850, 1880, 2633)
GROWTH = (1250, 2500, 5000, 10_000, 20_000)
FOLD_PARENTS, FOLD = 850, {"training": 32, "validation": 312, "test": 312}
ROUNDS = 5
WORDS = [
    "nests",
    "of",
    "polygonal",
    "tumour",
    "cells",
    "with",
    "clear",
    "cytoplasm",
    "keratin",
    "pearls",
    "papillae",
    "thin",
    "fibrovascular",
    "cores",
    "necrosis",
    "lymphocytes",
    "around",
    "glands",
    "mitoses",
    "crisp",
    "borders",
    "dense",
    "stroma",
    "vessels",
    "foamy",
    "macrophages",
    "small",
    "nucleoli",
]


def clip_tower() -> ClipTextTower:
    """PLIP's text side, ViT-B/32's: 512 wide, 12 layers, 8 heads, with random weights."""
    from transformers import CLIPConfig, CLIPModel

    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
    config = CLIPConfig(
        text_config={**text, "initializer_factor": 3.0},
        vision_config={**small, "image_size": 32, "patch_size": 16},
        projection_dim=DIM,
        initializer_factor=3.0,
    )
    return ClipTextTower(CLIPModel(config).float(), ClipTokenizer(Path(), 49408)).requires_grad_(False).eval()


def build(variant: str, device: torch.device) -> HiveMIL:
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
    model = build_model(Config(variant=variant), tower, texts[:8], texts[8:], NUM_CLASSES)
    assert isinstance(model, HiveMIL)
    weight = tower.text_projection.weight
    nn.init.eye_(weight)
    with torch.no_grad():
        states = torch.cat(model.prompts())
        projection = torch.linalg.pinv(states) @ torch.randn(states.shape, generator=generator)
        weight.copy_(projection if variant == "released" else projection.t())
    model.prompts.forget()
    return model.to(device)


def slide(num_parents: int, device: torch.device, seed: int = 0) -> Bag:
    """Random features."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(num_parents, NUM_CHILDREN, generator=generator) >= MISSING
    low = torch.randn(num_parents, DIM, generator=generator)
    high = torch.randn(num_parents, NUM_CHILDREN, DIM, generator=generator).mul_(mask.unsqueeze(-1))
    return Bag(f"slide_{seed}", low, high, mask, seed % NUM_CLASSES).to(device)


def work(
    model: HiveMIL, bag: Bag, task: str, is_oracle: bool, is_released: bool, oracle_keeps_texts: bool = True
) -> Callable[[], Any]:
    """What is measured, for one slide: "evaluation" (texts cached, the oracle's as well by default) or "training" (a
    step's forward and backward pass, the texts' with it)."""
    if is_oracle:
        with torch.no_grad():
            oracle = Oracle(model, is_released, keep_texts=task == "evaluation" and oracle_keeps_texts)
        run: Callable[[], Tensor | None] = lambda: oracle(bag)[1]  # noqa: E731
    else:
        run = lambda: model(bag).loss  # noqa: E731

    def evaluate() -> None:
        with torch.no_grad():
            run()

    def train() -> None:
        model.zero_grad()
        loss = run()
        assert loss is not None
        loss.backward()

    return evaluate if task == "evaluation" else train


def timed(call: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one call; on one thread of a CPU, those of the processor, which other programs disturb less."""
    gc.collect()
    if device.type != "cuda":
        clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
        start = clock()
        call()
        return clock() - start
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    call()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1000


def medians(candidates: dict[str, Callable[[], Any]], device: torch.device, rounds: int) -> dict[str, float]:
    """Seconds by name. Before each timed call comes another of the same, so that it finds caches and free memory as
    one slide after another does, not as the other candidates left them."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, call in candidates.items():
            call()
            seconds[name].append(timed(call, device))
    return {name: statistics.median(values) for name, values in seconds.items()}


def floor(bag: Bag) -> Callable[[], Any]:
    """Two (P*C, D) x (D, D) products into memory that is there."""
    children = bag.high_features.flatten(0, 1)
    weight, out = torch.randn(DIM, DIM, device=children.device), torch.empty_like(children)

    def call() -> None:
        for _ in range(2):
            torch.mm(children, weight, out=out)

    return call


def peak_memory(variant: str, task: str, num_parents: int, is_oracle: bool, device: torch.device) -> float:
    """GB above what the model and the slide take, measured in this process."""
    model, bag = build(variant, device), slide(num_parents, device)
    work(model, slide(50, device), task, is_oracle, variant == "released")()  # what is loaded at the first call
    return peak_of(work(model, bag, task, is_oracle, variant == "released"), device)


def peak_of(call: Callable[[], Any], device: torch.device) -> float:
    """GB that a call takes above what is taken before it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - allocated) / 1e9
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free goes back, so that all that is used counts
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is resident now
    before = _resident("VmRSS")
    call()
    return (_resident("VmHWM") - before) / 1e9


def _resident(field: str) -> int:
    """Bytes, from /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def peak_elsewhere(options: argparse.Namespace, *figure: str, module: str = "benchmarks.model") -> float:
    """The module's ``peak_memory`` in a fresh process; NaN where it fails there, out of memory say."""
    command = [sys.executable, "-m", module, "--device", options.device, "--threads", str(options.threads)]
    done = subprocess.run([*command, "--figure", *figure], capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else float("nan")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def header(device: torch.device, threads: int) -> str:
    """Date, machine and versions."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{_processor()}, {threads} threads"
    return f"{time.strftime('%Y-%m-%d')}, {name}; {', '.join(f'{key} {value}' for key, value in versions().items())}"


def table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    print(f"\n### {title}\n\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for row in rows:
        cells = [
            f"{cell:.3g}" if isinstance(cell, float) else f"{cell:,}" if isinstance(cell, int) else cell for cell in row
        ]
        print(f"| {' | '.join(cells)} |")
    sys.stdout.flush()


def slides_table(options: argparse.Namespace, device: torch.device, variant: str, task: str) -> None:
    """Time and memory of one slide, against the oracle and the floor; in evaluation, against the oracle with its texts
    cached, and as the released code has it, which encodes the prompts for every slide."""
    model, rows = build(variant, device), []
    oracles = {"oracle": True, "encoding oracle": False} if task == "evaluation" else {"oracle": False}
    for parents in options.parents:
        bag, is_released = slide(parents, device), variant == "released"
        candidates = {"ours": work(model, bag, task, False, is_released), "floor": floor(bag)}
        for name, keeps_texts in oracles.items():
            candidates[name] = work(model, bag, task, True, is_released, keeps_texts)
        seconds = medians(candidates, device, options.rounds)
        ours, oracle = (peak_elsewhere(options, variant, task, str(parents), who) for who in ("ours", "oracle"))
        against = [figure for name in oracles for figure in (seconds[name], seconds[name] / seconds["ours"])]
        over = seconds["ours"] / seconds["floor"]
        rows.append([parents, seconds["ours"], *against, over, ours, oracle, ours / oracle])
    names = [column for name in oracles for column in (f"{name} s", "times faster")]
    columns = ["parents", "s", *names, "times the floor", "GB", "oracle GB", "share of its memory"]
    table(f"{task}, {variant} variant", columns, rows)


def text_table(options: argparse.Namespace, device: torch.device) -> None:
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
        return model.prompts()

    rows = []
    for name, run in (("forward", no_step), ("forward and backward", step)):
        seconds = medians({"ours": partial(run, ours), "oracle": partial(run, oracle.encode)}, device, options.rounds)
        rows.append([name, seconds["ours"], seconds["oracle"], seconds["oracle"] / seconds["ours"]])
    table("text encoding, 32 prompts", ["", "s", "oracle s", "times faster"], rows)


def fold_table(options: argparse.Namespace, device: torch.device) -> None:
    """One epoch of training, validation and test; the oracle's time is that of a few slides times their number."""
    model, rows, totals = build("paper", device), [], [0.0, 0.0]
    few = [slide(FOLD_PARENTS, device, seed) for seed in range(4)]
    for part, number in FOLD.items():
        task = "training" if part == "training" else "evaluation"
        step = lambda: [work(model, few[i % 4], task, False, False)() for i in range(number)]  # noqa: B023, E731
        ours = timed(step, device)
        oracle = statistics.median(timed(work(model, bag, task, True, False), device) for bag in few) * number
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
        tasks = ("evaluation", "training")
        seconds = medians({task: work(model, bag, task, False, False) for task in tasks}, device, 1)
        memory = [peak_elsewhere(options, "paper", task, str(parents), "ours") for task in tasks]
        rows.append([parents, bag.high_features.numel() * 4 / 1e9, *seconds.values(), *memory])
    columns = ["parents", "children GB", "evaluation s", "training s", "evaluation GB", "training GB"]
    table("growth, paper variant", columns, rows)


TABLES: dict[str, Callable[[argparse.Namespace, torch.device], None]] = {
    "evaluation": lambda options, device: slides_table(options, device, "paper", "evaluation"),
    "training": lambda options, device: slides_table(options, device, "paper", "training"),
    "text": text_table,
    "growth": growth_table,
    "fold": fold_table,
    "released_evaluation": lambda options, device: slides_table(options, device, "released", "evaluation"),
    "released_training": lambda options, device: slides_table(options, device, "released", "training"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--parents", nargs="+", type=int, default=PARENTS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--figure", nargs=4, help=argparse.SUPPRESS)  # one figure of memory, for a fresh process
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    if options.figure:
        variant, task, parents, who = options.figure
        print(peak_memory(variant, task, int(parents), who == "oracle", device))
        return
    print(header(device, options.threads))
    for chosen in options.tables:
        TABLES[chosen](options, device)


if __name__ == "__main__":
    main()
