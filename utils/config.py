"""Every option of a training run, declared once: type, default, help. The run's config.json holds the same names."""

import argparse
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import partial
from math import inf, isfinite
from pathlib import Path
from typing import Any

MODEL_TYPES = [
    "HiVE_MIL", "MaxPooling", "MeanPooling", "ABMIL", "DSMIL", "CLAM_SB", "CLAM_MB", "TransMIL", "DTFD_MIL", "WiKG",
    "ViLa_MIL", "MSCPT", "FOCUS",
]  # fmt: skip
PROJECT = Path(__file__).resolve().parent.parent
# options that say where a run happens and which part of it, not what it computes
CIRCUMSTANCES = {
    "data_root_dir", "vlm_path", "dataset_csv", "split_dir", "text_prompt", "results_dir", "k_start", "k_end",
    "feature_dim", "device", "num_workers", "cache_gb", "log_data", "resume", "dry_run", "graph_backend",
}  # fmt: skip

# options that matter in training alone
TRAINING_ONLY = {
    "split_dir", "results_dir", "contrastive_lambda", "htcl", "bag_loss", "drop_out", "few_shot_num", "label_frac",
    "weighted_sample", "max_epochs", "early_stopping", "opt", "lr", "reg", "k", "k_start", "k_end", "testing",
    "num_workers", "log_data", "k_sample", "bag_weight", "inst_loss", "no_subtyping",
}  # fmt: skip


def magnification(text: str) -> int:
    """5 or 5x -> 5."""
    return int(text.lower().removesuffix("x"))


def flag(text: str) -> bool:
    """The value behind a flag, for those who write ``--early_stopping True``."""
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return values[text.lower()]


def at_least(lowest: float, kind: type = int, highest: float = inf) -> Any:
    """An argparse type: a number not below ``lowest`` nor above ``highest``."""

    def parse(text: str) -> Any:
        value = kind(text)
        if not isfinite(value):
            raise argparse.ArgumentTypeError(f"{text} is not a finite number")
        if value < lowest:
            raise argparse.ArgumentTypeError(f"{text} is less than {lowest}")
        if value > highest:
            raise argparse.ArgumentTypeError(f"{text} is more than {highest}")
        return value

    parse.__name__ = kind.__name__
    return parse


def option(default: Any, text: str, kind: Any = str, choices: Sequence[str] | None = None) -> Any:
    return field(default=default, metadata={"help": text, "kind": kind, "choices": choices})


def switch(text: str) -> Any:
    return field(default=False, metadata={"help": text, "kind": flag, "choices": None})


@dataclass(frozen=True)
class Config:
    """Options of main.py; the names are those of the released code where it has them."""

    task: str = option("", "name of the task: its CSV, splits, prompts and features carry it")
    data_root_dir: str = option("", "folder that holds <task>_<feature_extractor>/")
    feature_extractor: str = option("plip", "plip, quiltnet, conch, or any other name together with --vlm_path")
    vlm_path: str | None = option(None, "Hugging Face CLIP folder, CONCH pytorch_model.bin, or hub id")
    dataset_csv: str | None = option(None, "CSV of slides and labels (default: dataset_csv/<task>.csv)")
    split_dir: str | None = option(None, "folder with splits_<fold>.csv (default: splits/<task>/<task>_<shots>)")
    text_prompt: str | None = option(None, "descriptions (default: text_prompt/<model>/<LLM>/<task>, else HiVE_MIL's)")
    LLM: str = option("builtin", "which descriptions, a folder of text_prompt/<model>")
    results_dir: str = option("./results", "where runs are written")

    model_type: str = option("HiVE_MIL", "the model", str, MODEL_TYPES)
    variant: str = option(
        "paper", "what the model's paper says or what its released code computes", str, ["paper", "released"]
    )
    feature_dim: int | None = option(
        None, "width of the features (default: the text tower's, or the files')", at_least(1)
    )
    low_mag: int = option(5, "magnification of the parents", magnification)
    high_mag: int = option(20, "magnification of the children", magnification)
    num_low_mag_texts: int = option(4, "low descriptions a class", at_least(1))
    num_high_mag_subtexts: int = option(3, "high descriptions a low description", at_least(1))
    num_context_tokens: int = option(16, "learned tokens in a prompt", at_least(1))
    class_specific_token: bool = switch("learn the context tokens for each class")
    class_token_position: str = option(
        "end", "where the description stands: behind the context (end), within it, in front", str,
        ["end", "middle", "front"],
    )  # fmt: skip
    text_format: str = option("both", "what of a description is read", str, ["both", "term", "explanation"])
    filter_alpha: float = option(0.5, "TGDF keeps similarities of mean + alpha * std and more", at_least(-inf, float))
    tgdf: str = option(
        "full", "stages of the filtering (Table 12)", str, ["full", "no_mask_propagation", "high_only", "none"]
    )
    hier_aggregator: str = option(
        "msa", "messages between parents and children (Figure 6)", str, ["msa", "maa", "saa", "attention", "sage"]
    )
    hier_direction: str = option("both", "their direction (Figure 4)", str, ["both", "up", "down", "none"])
    graph_backend: str = option(
        "blocked", "graph layers in blocks of patches, or edge by edge with PyTorch Geometric: the same results, many "
        "times slower; the released variant has but one way", str, ["blocked", "pyg"],
    )  # fmt: skip
    scales: str = option("both", "scales whose logits count (Table 14)", str, ["both", "low", "high"])
    top_k_low: int = option(2, "low patches averaged per text", at_least(1))
    top_k_high: int = option(100, "high patches averaged per text", at_least(1))
    htcl: str = option(
        "class_wise", "text contrastive loss (Table 2)", str, ["class_wise", "instance_wise", "share_parent", "none"]
    )
    contrastive_lambda: float = option(0.5, "weight of the text contrastive loss", at_least(0, float))
    bag_loss: str = option("ce", "loss on the logits", str, ["ce", "svm", "focal"])
    drop_out: bool = switch("the model's dropout; of HiVE_MIL 0.25 between the graph layers")
    mode: str = option("transformer", "no effect; accepted since the released code has it")
    prototype_number: int = option(16, "of ViLa_MIL: learned prototypes a scale", at_least(1))
    k_sample: int = option(8, "of CLAM: patches of highest and lowest attention in the instance loss", at_least(1))
    bag_weight: float = option(0.7, "of CLAM: share of the bag loss in the loss", at_least(0, float, 1))
    inst_loss: str = option("svm", "of CLAM: instance loss", str, ["svm", "ce"])
    no_subtyping: bool = switch("of CLAM: no instance loss for the classes that a slide does not have")
    two_scale: bool = switch("of DSMIL: each 20x patch joined with its 5x parent")
    num_groups: int = option(4, "of DTFD_MIL: pseudo-bags a slide", at_least(1))
    num_mean_inference: int = option(1, "of DTFD_MIL: groupings whose predictions are averaged", at_least(1))
    num_neighbours: int = option(6, "of WiKG: neighbours a patch", at_least(1))
    readout: str = option("attention", "of WiKG: pooling of the nodes", str, ["attention", "mean"])

    few_shot_num: int = option(16, "training slides a class; names the split folder", at_least(1))
    label_frac: float = option(1.0, "share of each class's training slides to use", at_least(0, float))
    weighted_sample: bool = switch("draw the classes equally often in training")
    max_epochs: int = option(50, "epochs at most", at_least(1))
    early_stopping: bool = switch("stop after 10 epochs without a lower validation error")
    opt: str = option("adam", "optimiser", str, ["adam", "sgd"])
    lr: float = option(1e-4, "learning rate", at_least(0, float))
    reg: float = option(1e-5, "weight decay", at_least(0, float))
    seed: int = option(1, "every fold starts from it", int)
    k: int = option(5, "folds", at_least(1))
    k_start: int = option(-1, "first fold (-1: 0)", at_least(-1))
    k_end: int = option(-1, "fold to stop before (-1: k)", at_least(-1))
    testing: bool = switch("a quick try of the whole path: two slides a class and split, two epochs")

    device: str | None = option(None, "cpu, cuda or cuda:<n> (default: cuda where there is one)")
    precision: str = option("fp32", "bf16 runs the model under autocast", str, ["fp32", "bf16"])
    num_workers: int = option(1, "threads that read slides ahead", at_least(0))
    cache_gb: float | None = option(
        None, "memory for features that were read, in GB (default: half of what is free)", at_least(0, float)
    )
    cache_half: bool = switch("keep features in memory as float16: half the size, values rounded")
    log_data: bool = switch("write TensorBoard logs")
    resume: bool = switch("go on with an interrupted run at its last finished epoch")
    dry_run: bool = switch("check everything and stop before training")

    def folds(self) -> range:
        """The folds of this run."""
        return range(max(self.k_start, 0), self.k if self.k_end == -1 else self.k_end)

    def csv_path(self) -> Path:
        return Path(self.dataset_csv or PROJECT / "dataset_csv" / f"{self.task}.csv")

    def split_path(self, fold: int) -> Path:
        default = PROJECT / "splits" / self.task / f"{self.task}_{self.few_shot_num}"
        return Path(self.split_dir or default) / f"splits_{fold}.csv"

    def prompt_path(self) -> Path:
        return Path(self.text_prompt or PROJECT / "text_prompt" / "HiVE_MIL" / self.LLM / f"{self.task}.json")

    def run_path(self) -> Path:
        """RESULTS/<task>/<fe>/<shots>/<task>_<fe>_<model>_<shots>_s<seed>"""
        shots = str(self.few_shot_num)
        name = (
            f"{self.task}_{self.feature_extractor}_{self.model_type}_{shots}_s{self.seed}" + "_testing" * self.testing
        )
        return Path(self.results_dir) / self.task / self.feature_extractor / shots / name

    def to_dict(self) -> dict[str, Any]:
        """All options; paths that exist are made absolute, so that the record can be read from another folder."""
        options = asdict(self)
        for name in ("data_root_dir", "vlm_path", "dataset_csv", "split_dir", "text_prompt", "results_dir"):
            if options[name] and Path(options[name]).exists():
                options[name] = str(Path(options[name]).resolve())
        return options


def add_options(parser: argparse._ActionsContainer) -> None:
    """Add every option, spelt with - and with _. What is not given stays out of the namespace."""
    for item in fields(Config):
        names = dict.fromkeys([f"--{item.name}", f"--{item.name.replace('_', '-')}"])
        settings = item.metadata
        assert item.default is not MISSING
        default = "" if item.default in (None, "", False) else f" (default: {item.default})"
        metavar = {str: "NAME", flag: "BOOL"}.get(settings["kind"], "N")
        extra: dict[str, Any] = {"nargs": "?", "const": True} if settings["kind"] is flag else {}
        if settings["choices"]:
            metavar = "{" + ",".join(settings["choices"]) + "}"
            extra["choices"] = settings["choices"]
        parser.add_argument(
            *names, dest=item.name, type=settings["kind"], default=argparse.SUPPRESS, metavar=metavar, **extra,
            help=(settings["help"] + default).replace("%", "%%"),
        )  # fmt: skip


def add_option(parser: argparse.ArgumentParser, name: str, **settings: Any) -> None:
    """One option of a script, spelt with - and with _."""
    parser.add_argument(*dict.fromkeys([f"--{name}", f"--{name.replace('-', '_')}"]), **settings)


def folder_name(text: str) -> str:
    """An argparse type: a name that folders carry."""
    if text in ("", "..") or Path(text).name != text:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a name without slashes (hub ids are for --vlm-path)")
    return text


def add_folder_options(parser: argparse.ArgumentParser) -> None:
    """The options by which the preprocessing scripts name a task's feature folders."""
    add = partial(add_option, parser)
    add("dataset-root-path", type=Path, required=True, help="folder that holds <dataset>_<feature extractor>/")
    add("dataset-name", type=folder_name, required=True, help="name of the task")
    add("feature-extractor-name", type=folder_name, required=True, help="plip, quiltnet, conch, or the name of another")
    add("low-mag", type=magnification, default=5, help="magnification of the parents (default: 5)")
    add("high-mag", type=magnification, default=20, help="magnification of the children (default: 20)")
