"""Every option that a script takes is read by what the script does, or said to be without effect: the fields of Config
are held against what is read of it while models train, predict and explain, and against what comes out."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import PROJECT, RunMain, SimulatedTask
from tests.support.run_contents import files_below, notes, numbers
from tests.support.small_transmil import make_transmil_small
from utils.config import OPTIONS, Config
from utils.effects import options_without_effect
from utils.model_types import MODEL_TYPES
from utils.options import GIVEN, Stage, flag

MODELS = [*((name, "paper") for name in MODEL_TYPES), ("HiVE_MIL", "released"), ("ViLa_MIL", "released")]
READ_FOR_NOTHING = {
    ("variant", "training/examination.py"),  # for a message
    ("text_format", "datasets/model_texts.py"),  # handed on with others; prompts of ViLa_MIL's form have one format
    ("cache_gb", "training/inputs.py"),  # an explanation leaves the cache empty
    ("cache_half", "training/inputs.py"),
}
READ_OF_BARE_CHECKPOINTS = {"class_order"}  # config.json names the classes in their order
ASK_ALL = {"dataclasses.py", "effects.py", "<string>"}  # copies, comparisons, and what the fields themselves say


@pytest.fixture
def quick_models(monkeypatch: pytest.MonkeyPatch, blank_figures: None) -> None:
    """TransMIL in small, and blank figures beside predictions: which options are read is the same."""
    make_transmil_small(monkeypatch)


@contextmanager
def recorded() -> Iterator[dict[str, set[str]]]:
    """{option: files that read it from a Config}"""
    reads: dict[str, set[str]] = {}

    def read(self: Config, name: str) -> object:
        file = Path(sys._getframe(1).f_code.co_filename)
        if name in OPTIONS and file.name not in ASK_ALL:
            where = file.relative_to(PROJECT) if file.is_relative_to(PROJECT) else file
            reads.setdefault(name, set()).add(str(where))
        return object.__getattribute__(self, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Config, "__getattribute__", read)
        yield reads


def other_value(name: str) -> str:
    """A value on the command line that is not the default."""
    told, default = OPTIONS[name], getattr(Config, name)
    if told.choices:
        return next(choice for choice in told.choices if choice != default)
    if told.kind is flag:
        return "true"
    if isinstance(default, int | float):
        return str(default + 1 if isinstance(default, int) else default / 2)
    return "1" if name == "cache_gb" else "elsewhere"


def changed(names: set[str]) -> list[str]:
    return [f"--{name}={other_value(name)}" for name in sorted(names)]


def noted(out: str) -> list[str]:
    """Names of the options said to be without effect."""
    return [line.split()[1].removeprefix("--") for line in notes(out)]


def check_reads(reads: dict[str, set[str]], config: Config, stage: Stage) -> None:
    """What has an effect is read. What has none is read by the model's own modules alone, which build parts that the
    stage has no use for, and where it does nothing."""
    useless = options_without_effect(config, stage)
    assert OPTIONS.keys() - useless - reads.keys() <= READ_OF_BARE_CHECKPOINTS
    elsewhere = {
        (name, file) for name in useless & reads.keys() for file in reads[name] if not file.startswith("models/")
    }
    assert elsewhere - READ_FOR_NOTHING == set()


@pytest.mark.parametrize(("model_type", "variant"), MODELS)
def test_options_are_read_or_said_to_be_without_effect(
    simulated: SimulatedTask, run_main: RunMain, tmp_path: Path, quick_models: None, model_type: str, variant: str
) -> None:
    model = "--model_type", model_type, "--variant", variant
    config = Config(model_type=model_type, variant=variant, text_prompt="given")

    given = [*model, "--testing", "--k_end", "1"]
    with recorded() as reads:
        code, _, err = run_main(simulated.options(tmp_path / "plain", *given))
    assert code == 0, err
    check_reads(reads, config, "training")
    useless = options_without_effect(config)
    code, out, err = run_main(simulated.options(tmp_path / "changed", *given, *changed(useless)))
    assert (code, noted(out)) == (0, sorted(useless)), err
    (plain,), (other,) = ([*(tmp_path / name).rglob("*_testing")] for name in ("plain", "changed"))
    assert numbers(plain) == numbers(other)

    bare = shutil.copy(plain / "s_0_checkpoint.pt", tmp_path / "bare.pt")
    few = tmp_path / "few.csv"
    pd.read_csv(simulated.root / "simulated.csv").iloc[[0, 5, 15]].to_csv(few, index=False)
    given = ["--checkpoint", str(bare), *simulated.options(tmp_path, *model, "--dataset_csv", str(few))]
    with recorded() as reads:
        code, _, err = run_main([*given, "--output", str(tmp_path / "plain.csv")], "predict")
    assert code == 0, err
    check_reads(reads, config, "prediction")
    useless = options_without_effect(config, "prediction")
    code, out, err = run_main([*given, "--output", str(tmp_path / "other.csv"), *changed(useless)], "predict")
    assert (code, noted(out)) == (0, sorted(useless)), err
    assert (tmp_path / "plain.csv").read_bytes() == (tmp_path / "other.csv").read_bytes()


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_options_are_read_or_said_to_be_without_effect_on_explanations(
    simulated: SimulatedTask, run_main: RunMain, tmp_path: Path, variant: str
) -> None:
    config = Config(variant=variant, text_prompt="given")
    assert run_main(simulated.options(tmp_path / "run", "--variant", variant, "--testing", "--k_end", "1"))[0] == 0
    (checkpoint,) = tmp_path.rglob("s_0_checkpoint.pt")
    bare = shutil.copy(checkpoint, tmp_path / "bare.pt")
    slide_id = pd.read_csv(simulated.root / "simulated.csv")["slide_id"][0]
    given = ["--checkpoint", str(bare), "--slide", slide_id, *simulated.options(tmp_path, "--variant", variant)]
    with recorded() as reads:
        code, _, err = run_main([*given, "--output-dir", str(tmp_path / "plain")], "explain")
    assert code == 0, err
    check_reads(reads, config, "explanation")
    useless = options_without_effect(config, "explanation")
    code, out, err = run_main([*given, "--output-dir", str(tmp_path / "other"), *changed(useless)], "explain")
    assert (code, noted(out)) == (0, sorted(useless)), err
    assert files_below(tmp_path / "plain") == files_below(tmp_path / "other")


SWITCHES = [(name, values) for name, told in OPTIONS.items() for values in told.unless]


@pytest.mark.parametrize(
    ("name", "values"), SWITCHES, ids=[f"{name}-{number}" for number, (name, _) in enumerate(SWITCHES)]
)
def test_an_option_has_an_effect_until_another_one_takes_it_away(name: str, values: dict) -> None:
    (model_type, *_) = [one for one in MODEL_TYPES if OPTIONS[name].is_read(one, "training")]
    plain = Config(model_type=model_type)
    switched_off = replace(plain, **{key: "given" if value is GIVEN else value for key, value in values.items()})
    assert name not in options_without_effect(plain)
    assert name in options_without_effect(switched_off)


def test_what_is_switched_off_itself_switches_nothing_off() -> None:
    """The released variant has one text contrastive loss, whatever --htcl says, and its weight counts."""
    config = Config(variant="released", htcl="none")
    assert "htcl" in options_without_effect(config)
    assert "contrastive_lambda" not in options_without_effect(config)
