"""What each script is called with, what it may leave, and what may differ between two calls."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.campaign.calls import Call
from tests.campaign.stand_ins import ARCHIVED, BLANK_FIGURES, GRID_PROJECT, NO_KEYS, SMALL_RELEASE
from tests.campaign.world import RUN, World, task_options


@dataclass(frozen=True)
class Scenario:
    """A call of a script.

    argv: with paths relative to the scenario's place; the same call goes on where an interrupted one stopped. inputs:
    folders of the world that the place starts with. exit: the code of a call that ends well. kept: patterns of files
    that a second call does not write again, once they are as they should be. varies: patterns of files that hold times,
    say. once: a call refuses to make what is there already, whole.
    """

    name: str
    script: str
    argv: tuple[str, ...]
    inputs: tuple[str, ...] = ("task",)
    exit: int = 0
    kept: tuple[str, ...] = ()
    varies: tuple[str, ...] = ()
    arrange: str = ""
    arranged_with: tuple[str, ...] = ()
    once: bool = False

    def call(self, place: Path) -> Call:
        return Call(self.script, self.argv, str(place), self.arrange, self.arranged_with)


EXTRACT = (
    *("--task", "mine", "--feature_extractor", "tinyclip", "--vlm_path", "task/tinyclip"),
    *("--wsi-dir", "slides", "--data_root_dir", "out", "--device", "cpu"),
)
SOURCES = (
    *("--vlm_path", "task/tinyclip", "--data_root_dir", "task/features", "--dataset_csv", "task/simulated.csv"),
    *("--text_prompt", "task/simulated.json", "--split_dir", "task/splits/simulated_2"),
)
"""Where a run finds its inputs: its record names those of the world, which no scenario changes."""
CHECKPOINTS = ("--checkpoint", f"{RUN}/s_0_checkpoint.pt", f"{RUN}/s_1_checkpoint.pt")
TRAINED = ("task", "trained")
H5 = ("*.h5",)


def folders(root: str) -> tuple[str, ...]:
    return ("--task", "simulated", "--feature_extractor", "tinyclip", "--data_root_dir", root)


def of_runs() -> list[Scenario]:
    """Scripts that train, or read what was trained."""
    fold = ("fold_*.json",)
    seen = ("checked_features.json",)  # times of files
    main = Scenario("main", "main", task_options("results", "--resume"), kept=fold, varies=seen)
    report = ("trained", "--output-dir", "report", "--resamples", "20")
    predict = (*CHECKPOINTS, "--output", "out/predictions.csv", "--resume", *SOURCES)
    explain = (*CHECKPOINTS[:2], "--slide", "SIM-0001", "--draws", "0", "--output-dir", "explained", *SOURCES)
    return [
        main,
        replace(main, name="main, ABMIL", argv=task_options("results", "--resume", "--model_type", "ABMIL")),
        replace(main, name="main, released", argv=task_options("results", "--resume", "--variant", "released")),
        replace(
            main, name="main --from_config", inputs=TRAINED,
            argv=("--from_config", f"{RUN}/config.json", "--results_dir", "results", "--resume", *SOURCES),
        ),
        replace(main, name="main, finished", argv=task_options("trained", "--resume"), inputs=TRAINED),
        replace(main, name="main, stopped", argv=task_options("stopped", "--resume"), inputs=("task", "stopped")),
        Scenario("predict", "predict", predict, TRAINED),
        Scenario(
            "predict --wsi-dir", "predict", inputs=(*TRAINED, "slides"),
            argv=(*CHECKPOINTS[:2], "--output", "out/predictions.csv", "--wsi-dir", "slides", "--data_root_dir", "new",
                  "--resume"),
        ),
        Scenario("explain", "explain", explain, TRAINED),
        Scenario("results_page", "results_page", (RUN, "--output", "page.html"), TRAINED, arrange=BLANK_FIGURES),
        Scenario("report_results", "report_results", report, TRAINED),
    ]  # fmt: skip


def of_data(world: World) -> list[Scenario]:
    """Scripts that make data."""
    simulate = ("--output-dir", "made", "--slides-per-class", "6", "--shots", "2", "--width", "16")
    link = Scenario("link", "create_hierarchical_features", (*folders("unlinked"), "--workers", "1"), ("unlinked",))
    extract = Scenario("extract", "extract_features", (*EXTRACT, "--workers", "0"), ("task", "slides"))
    splits = ("--task", "mine", "--dataset_csv", "small/table.csv", "--output_dir", "splits", "--few_shot_num", "2")
    prompt = ("--task", "made", "--classes", "A", "B", "--LLM", "m", "--output", "out/made.json")
    table = ("--task", "mine", "--output", "out/mine.csv")
    labels = ("--labels", "TCGA-LUAD=LUAD", "TCGA-LUSC=LUSC", "--manifest", "out/manifest.txt")
    return [
        Scenario(
            "create_simulated_task", "create_simulated_task", (*simulate, "--min-parents", "3", "--max-parents", "5"),
            inputs=(),
        ),
        replace(link, kept=H5),
        replace(link, name="link, two workers", argv=(*link.argv, "--workers", "2"), kept=H5),
        replace(extract, kept=("hierarchical_*/*.h5",)),
        replace(extract, name="extract, two workers", argv=(*EXTRACT, "--workers", "2")),
        Scenario("check --fix", "check_hierarchical_consistency", (*folders("broken"), "--workers", "1", "--fix"),
                 ("broken",)),
        Scenario("create_splits", "create_splits", splits, ("small",)),
        Scenario("create_dataset_csv, folder", "create_dataset_csv", (*table, "--slides-dir", "slides"), ("slides",)),
        Scenario("create_dataset_csv, table", "create_dataset_csv", (*table, "--table", "small/table.csv"), ("small",)),
        Scenario("create_dataset_csv, GDC", "create_dataset_csv",
                 (*table, "--gdc", "--gdc-url", world.urls["gdc"], *labels), ()),
        Scenario("create_mil_task", "create_mil_task",
                 ("--csv", "small/mil.csv", "--output-dir", "made", "--k", "3"), ("small",)),
        Scenario("create_text_prompt", "create_text_prompt", (*prompt, "--base-url", world.urls["chat"]), (),
                 varies=("*.answers.jsonl",), arrange=NO_KEYS, once=True),
    ]  # fmt: skip


def of_servers_and_grids(world: World) -> list[Scenario]:
    """Scripts that fetch, and grids."""
    release = Scenario(
        "fetch, files", "fetch_released_assets", ("--base-url", world.urls["release"], "--output-dir", "made"), (),
        kept=("dataset_csv/*", "splits/*/*"), arrange=SMALL_RELEASE, arranged_with=(world.urls["drive"],),
    )  # fmt: skip
    features = ("--data_root_dir", "data", "--features", *ARCHIVED)
    grid = ("--grid", "small/grid.yaml", "--local", "--jobs", "2", "--task", "t", "--data_root_dir", "D")
    return [
        release,
        replace(release, name="fetch, features", argv=(*release.argv, *features), kept=(*release.kept, *H5)),
        replace(release, name="fetch, weights", argv=(*release.argv, "--conch-weights"), kept=("*.bin",)),
        Scenario(
            "run_experiments", "run_experiments", (*grid, "--results_dir", "results"), ("small",),
            kept=("fold_*.json",), varies=("*.log",), arrange=GRID_PROJECT,
            arranged_with=(str(world.root / "project"),),
        ),
    ]  # fmt: skip


def for_fuzzing(scenario: Scenario) -> Scenario:
    """The call without its training or prediction, where it has one."""
    is_long = scenario.script in ("main", "predict")
    return replace(scenario, argv=(*scenario.argv, "--dry_run")) if is_long else scenario


def scenarios(world: World, names: Sequence[str] = ()) -> list[Scenario]:
    """All that write something, or those with some names."""
    everything = [*of_runs(), *of_data(world), *of_servers_and_grids(world)]
    chosen = [scenario for scenario in everything if not names or scenario.name in names]
    assert not names or len(chosen) == len(set(names)), names
    return chosen
