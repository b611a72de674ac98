"""Every option of a training run, declared once: type, default, help, and what it is. The run's config.json holds the
same names."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from utils.model_types import ALL, CLAM, HIVE, MODEL_TYPES, TEXTS
from utils.names import check_names, folder_name
from utils.options import (
    GIVEN,
    MOST_FOLDS,
    MOST_WORKERS,
    OVER_SLIDES,
    TRAINING,
    Nature,
    Option,
    any_seed,
    at_least,
    flag,
    magnification,
    option,
    path,
    switch,
    within,
    words,
)  # fmt: skip

PROJECT = Path(__file__).resolve().parent.parent
RELEASED_HIVE = {"model_type": "HiVE_MIL", "variant": "released"}
ONE_SCALE = [{"instances": "low"}, {"instances": "high"}]
EDGE_BY_EDGE = [{"intra_aggregator": "mlp"}, {"intra_aggregator": "attention"}, {"hier_aggregator": "mlp"}]
NO_INSTANCE_LOSS = {"bag_weight": 1}


@dataclass(frozen=True)
class Config:
    """Options of main.py; the names are those of the released code where it has them."""

    task: str = option(
        "", "name of the task: its CSV, splits, prompts and features carry it", folder_name, nature=Nature.NAME,
        may_change=True,
    )  # fmt: skip
    data_root_dir: str = option("", "folder that holds <task>_<feature_extractor>/", path, nature=Nature.SOURCE)
    features_from: str | None = option(
        None, "a TRIDENT job to read in place, linked on the fly; no --data_root_dir", path, nature=Nature.SOURCE
    )
    feature_extractor: str = option(
        "plip", "a published model (extract_features.py --list-models), or any other name together with --vlm_path",
        folder_name, nature=Nature.NAME,
    )  # fmt: skip
    vlm_path: str | None = option(
        None, "the model's folder, weight file or hub id (default: the published one)", path, nature=Nature.SOURCE,
        models=TEXTS,
    )  # fmt: skip
    assume_model: str | None = option(
        None, "the model that made features whose files do not say it, by its name (--list-models)", words,
        nature=Nature.SOURCE,
    )  # fmt: skip
    dataset_csv: str | None = option(
        None, "CSV of slides and labels (default: dataset_csv/<task>.csv)", path, nature=Nature.SOURCE
    )
    split_dir: str | None = option(
        None, "folder with splits_<fold>.csv (default: splits/<task>/<task>_<shots>)", path, nature=Nature.SOURCE,
        stages=TRAINING,
    )  # fmt: skip
    text_prompt: str | None = option(
        None, "descriptions (default: text_prompt/<model>/<LLM>/<task>, else HiVE_MIL's)", path, nature=Nature.SOURCE,
        models=TEXTS,
    )  # fmt: skip
    LLM: str | None = option(
        None, "which descriptions, a folder of text_prompt/<model> (default: gpt4o where the task's file lies there, "
        "else builtin)", folder_name, models=TEXTS, unless=[{"text_prompt": GIVEN}],
    )  # fmt: skip
    class_order: str = option(
        "labels", "what numbers the classes: their names in order, or their places in the file of descriptions, as the "
        "released code has it", choices=["labels", "prompts"], models=HIVE,
    )  # fmt: skip
    results_dir: str = option("./results", "where runs are written", path, nature=Nature.CALL, stages=TRAINING)

    model_type: str = option("HiVE_MIL", "the model", choices=[*MODEL_TYPES], nature=Nature.NAME)
    variant: str = option(
        "paper", "what the model's paper says or what its released code computes", choices=["paper", "released"],
        models={"HiVE_MIL", "MaxPooling", "WiKG", "ViLa_MIL", "MSCPT"},
    )  # fmt: skip
    feature_dim: int | None = option(
        None, "width of the features (default: the text tower's, or the files')", at_least(1), nature=Nature.SOURCE
    )
    low_mag: int = option(5, "magnification of the parents", magnification)
    high_mag: int = option(20, "magnification of the children", magnification)
    num_low_mag_texts: int = option(4, "low descriptions a class", within(1, 1000), models=TEXTS)
    num_high_mag_subtexts: int = option(3, "high descriptions a low description", within(1, 1000), models=TEXTS)
    num_context_tokens: int = option(16, "learned tokens in a prompt", within(1, 1000), models=TEXTS - {"MSCPT"})
    class_specific_token: bool = switch("learn the context tokens for each class", models=HIVE)
    class_token_position: str = option(
        "end", "where the description stands: behind the context (end), within it, in front",
        choices=["end", "middle", "front"], models=HIVE,
    )  # fmt: skip
    context_per_scale: bool = option(
        True, "learn context tokens for each scale (Equation 1); the released variant has one set for both", flag,
        models=HIVE, unless=[RELEASED_HIVE],
    )  # fmt: skip
    text_format: str = option(
        "both", "what of a description is read", choices=["both", "term", "explanation"], models=HIVE | {"MSCPT"}
    )
    filter_alpha: float = option(
        0.5, "TGDF keeps similarities of mean + alpha * std and more", at_least(-1000, float, 1000), models=HIVE,
        unless=[{"tgdf": "none"}],
    )  # fmt: skip
    tgdf: str = option(
        "full", "stages of the filtering (Table 12)", choices=["full", "no_mask_propagation", "high_only", "none"],
        models=HIVE, unless=[RELEASED_HIVE],
    )  # fmt: skip
    instances: str = option(
        "both", "scales whose patches and texts are in the graph (Table 14)", choices=["both", "low", "high"],
        models=HIVE, unless=[RELEASED_HIVE],
    )  # fmt: skip
    intra_aggregator: str = option(
        "graph", "messages between patches and texts of a scale (Table 13): GraphSAGE, attention, or a perceptron "
        "without messages", choices=["graph", "mlp", "attention"], models=HIVE, unless=[RELEASED_HIVE],
    )  # fmt: skip
    hier_aggregator: str = option(
        "msa", "messages between parents and children (Figure 6, Table 13); mlp: a perceptron without messages",
        choices=["msa", "maa", "saa", "attention", "sage", "mlp"], models=HIVE,
        unless=[RELEASED_HIVE, {"hier_direction": "none"}, *ONE_SCALE],
    )  # fmt: skip
    hier_direction: str = option(
        "both", "their direction (Figure 4)", choices=["both", "up", "down", "none"], models=HIVE,
        unless=[RELEASED_HIVE, *ONE_SCALE],
    )  # fmt: skip
    graph_backend: str = option(
        "blocked", "graph layers in blocks of patches, or edge by edge with PyTorch Geometric: the same results, "
        "several times slower; the released variant has but one way", choices=["blocked", "pyg"], nature=Nature.MACHINE,
        models=HIVE, unless=[RELEASED_HIVE, *EDGE_BY_EDGE],
    )  # fmt: skip
    scales: str = option(
        "both", "scales whose logits count", choices=["both", "low", "high"], models=HIVE, unless=ONE_SCALE
    )
    top_k_low: int = option(
        2, "low patches averaged per text", at_least(1), models=HIVE,
        unless=[{"scales": "high"}, {"instances": "high"}],
    )  # fmt: skip
    top_k_high: int = option(
        100, "high patches averaged per text", at_least(1), models=HIVE,
        unless=[{"scales": "low"}, {"instances": "low"}],
    )  # fmt: skip
    htcl: str = option(
        "class_wise", "text contrastive loss (Table 2)",
        choices=["class_wise", "instance_wise", "share_parent", "none"], models=HIVE, stages=TRAINING,
        unless=[RELEASED_HIVE, *ONE_SCALE],
    )  # fmt: skip
    contrastive_lambda: float = option(
        0.5, "weight of the text contrastive loss", at_least(0, float), models=HIVE, stages=TRAINING,
        unless=[{"htcl": "none"}, *ONE_SCALE],
    )  # fmt: skip
    bag_loss: str = option(
        "ce", "loss on the logits", choices=["ce", "svm", "focal"], models=ALL - {"DSMIL"}, stages=TRAINING,
        unless=[RELEASED_HIVE],
    )  # fmt: skip
    drop_out: bool = switch(
        "the model's dropout; of HiVE_MIL 0.25 between the graph layers",
        models=HIVE | CLAM | {"MaxPooling", "MeanPooling", "ABMIL", "TransMIL", "WiKG", "MSCPT", "FOCUS"},
        stages=TRAINING, unless=[RELEASED_HIVE],
    )  # fmt: skip
    mode: str = option("transformer", "no effect; accepted since the released code has it", words, models=())
    prototype_number: int = option(
        16, "of ViLa_MIL: learned prototypes a scale", within(1, 10_000), models={"ViLa_MIL"}
    )
    k_sample: int = option(
        8, "of CLAM: patches of highest and lowest attention in the instance loss", at_least(1), models=CLAM,
        stages=TRAINING, unless=[NO_INSTANCE_LOSS],
    )  # fmt: skip
    bag_weight: float = option(
        0.7, "of CLAM: share of the bag loss in the loss", at_least(0, float, 1), models=CLAM, stages=TRAINING
    )
    inst_loss: str = option(
        "svm", "of CLAM: instance loss", choices=["svm", "ce"], models=CLAM, stages=TRAINING, unless=[NO_INSTANCE_LOSS]
    )
    no_subtyping: bool = switch(
        "of CLAM: no instance loss for the classes that a slide does not have", models=CLAM, stages=TRAINING,
        unless=[NO_INSTANCE_LOSS],
    )  # fmt: skip
    two_scale: bool = switch("of DSMIL: each 20x patch joined with its 5x parent", models={"DSMIL"})
    num_groups: int = option(4, "of DTFD_MIL: pseudo-bags a slide", within(1, 10_000), models={"DTFD_MIL"})
    num_mean_inference: int = option(
        1, "of DTFD_MIL: groupings whose predictions are averaged", within(1, 10_000), models={"DTFD_MIL"}
    )
    num_neighbours: int = option(6, "of WiKG: neighbours a patch", within(1, 10_000), models={"WiKG"})
    readout: str = option("attention", "of WiKG: pooling of the nodes", choices=["attention", "mean"], models={"WiKG"})

    few_shot_num: int = option(
        16, "training slides a class; names the split folder", at_least(1), nature=Nature.NAME, stages=TRAINING
    )
    label_frac: float = option(1.0, "share of each class's training slides to use", at_least(0, float), stages=TRAINING)
    weighted_sample: bool = switch("draw the classes equally often in training", stages=TRAINING)
    max_epochs: int = option(50, "epochs at most", at_least(1), stages=TRAINING)
    early_stopping: bool = switch(
        "stop after 10 epochs without a better --checkpoint_metric, and test the epoch of the best; without the option "
        "the last epoch is tested", stages=TRAINING,
    )  # fmt: skip
    checkpoint_metric: str = option(
        "val_acc", "what the best epoch is the best by", choices=["val_acc", "val_loss", "val_auc"], stages=TRAINING
    )
    patient_pooling: str = option(
        "mean", "of the probabilities of a patient's slides", choices=["mean", "max"], stages=OVER_SLIDES
    )
    opt: str = option("adam", "optimiser", choices=["adam", "sgd"], stages=TRAINING)
    lr: float = option(1e-4, "learning rate", at_least(0, float, 1e38), stages=TRAINING)
    reg: float = option(1e-5, "weight decay", at_least(0, float, 1000), stages=TRAINING)
    seed: int = option(
        1, "every fold starts from it", any_seed, nature=Nature.NAME,
        stages={"training": ALL, "prediction": {"DTFD_MIL"}},
    )  # fmt: skip
    k: int = option(5, "folds", within(1, MOST_FOLDS), stages=TRAINING)
    k_start: int = option(-1, "first fold (-1: 0)", within(-1, MOST_FOLDS), nature=Nature.CALL, stages=TRAINING)
    k_end: int = option(-1, "fold to stop before (-1: k)", within(-1, MOST_FOLDS), nature=Nature.CALL, stages=TRAINING)
    testing: bool = switch("a quick try of the whole path: two slides a class and split, two epochs", stages=TRAINING)

    device: str | None = option(
        None, "cpu, cuda or cuda:<n> (default: cuda where there is one)", words, nature=Nature.MACHINE
    )
    precision: str = option("fp32", "bf16 runs the model under autocast", choices=["fp32", "bf16"], may_change=True)
    num_workers: int = option(
        1, "threads that read slides ahead", within(0, MOST_WORKERS), nature=Nature.MACHINE, stages=OVER_SLIDES
    )
    cache_gb: float | None = option(
        None, "memory for features that were read, in GB (default: half of what is free)", at_least(0, float),
        nature=Nature.MACHINE, stages=OVER_SLIDES,
    )  # fmt: skip
    cache_half: bool = switch("keep features in memory as float16: half the size, values rounded", stages=OVER_SLIDES)
    log_data: bool = switch("write TensorBoard logs", nature=Nature.MACHINE, stages=TRAINING)
    resume: bool = switch(
        "go on with an interrupted run at its last finished epoch", nature=Nature.CALL, stages=OVER_SLIDES
    )
    verify: bool = switch(
        "read every feature file again, also those that look unchanged since they were found good by size and time",
        nature=Nature.CALL, stages=TRAINING,
    )  # fmt: skip
    dry_run: bool = switch("check everything and stop before training", nature=Nature.CALL, stages=OVER_SLIDES)

    def __post_init__(self) -> None:
        """Raises UserError where the task, the feature extractor or the LLM cannot be a folder's name, wherever the
        options are from: a command line, a grid, or the record of a run."""
        values = vars(self)
        for name in NAMES:
            if values[name] != getattr(Config, name):
                check_names([values[name]], f"--{name}", "names")

    @property
    def text_form(self) -> str | None:
        """Whose form of descriptions the model reads ("HiVE_MIL", "ViLa_MIL" or "MSCPT"), None for none."""
        return MODEL_TYPES[self.model_type].texts

    def folds(self) -> range:
        """The folds of this run."""
        return range(max(self.k_start, 0), self.k if self.k_end == -1 else self.k_end)

    def language_model(self) -> str:
        """Who wrote the descriptions: --LLM, or else gpt4o where the task's file lies there, or else builtin."""
        released = (PROJECT / "text_prompt" / model / "gpt4o" / self.task for model in ("HiVE_MIL", self.model_type))
        is_there = any(file.with_name(f"{file.name}{end}").is_file() for file in released for end in (".json", ".csv"))
        return self.LLM or ("gpt4o" if is_there else "builtin")

    def texts_folder(self, model: str) -> Path:
        """The folder of the language model's descriptions in the form of a model."""
        return PROJECT / "text_prompt" / model / self.language_model()

    def csv_path(self) -> Path:
        return Path(self.dataset_csv or PROJECT / "dataset_csv" / f"{self.task}.csv")

    def split_path(self, fold: int) -> Path:
        default = PROJECT / "splits" / self.task / f"{self.task}_{self.few_shot_num}"
        return Path(self.split_dir or default) / f"splits_{fold}.csv"

    def prompt_path(self) -> Path:
        return Path(self.text_prompt or self.texts_folder("HiVE_MIL") / f"{self.task}.json")

    def run_path(self) -> Path:
        """RESULTS/<task>/<fe>/<shots>/<task>_<fe>_<model>_<shots>_s<seed>"""
        shots, suffix = str(self.few_shot_num), "_testing" * self.testing
        name = f"{self.task}_{self.feature_extractor}_{self.model_type}_{shots}_s{self.seed}{suffix}"
        return Path(self.results_dir) / self.task / self.feature_extractor / shots / name

    def to_dict(self) -> dict[str, Any]:
        """All options; the language model is named, and paths that exist are made absolute, so that the record says the
        same when it is read from another folder, or later."""
        options = asdict(self)
        if self.text_form and not self.text_prompt:
            options["LLM"] = self.language_model()
        for name in PATHS:
            if options[name] and Path(options[name]).exists():
                options[name] = str(Path(options[name]).resolve())
        return options


OPTIONS: dict[str, Option] = {item.name: item.metadata["option"] for item in fields(Config)}
NAMES = tuple(name for name, told in OPTIONS.items() if told.kind is folder_name)
PATHS = frozenset(name for name, told in OPTIONS.items() if told.is_path)
