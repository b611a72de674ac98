"""The options of main.py: names, spellings, defaults, and what is refused."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from utils.arguments import add_options
from utils.config import OPTIONS, PROJECT, Config

# every option of the interfaces page with its default
PUBLISHED_DEFAULTS: dict[str, Any] = {
    "data_root_dir": "",
    "max_epochs": 50,
    "lr": 1e-4,
    "feature_extractor": "plip",
    "feature_dim": None,  # the text tower's own, 512 for the published ones
    "few_shot_num": 16,
    "high_mag": 20,
    "low_mag": 5,
    "label_frac": 1.0,
    "seed": 1,
    "k": 5,
    "k_start": -1,
    "k_end": -1,
    "results_dir": "./results",
    "log_data": False,
    "testing": False,
    "early_stopping": False,
    "opt": "adam",
    "drop_out": False,
    "model_type": "HiVE_MIL",
    "mode": "transformer",
    "weighted_sample": False,
    "reg": 1e-5,
    "bag_loss": "ce",
    "task": "",
    "text_prompt": None,
    "prototype_number": 16,
    "device": None,
    "LLM": None,
    "num_context_tokens": 16,
    "class_specific_token": False,
    "class_token_position": "end",
    "num_low_mag_texts": 4,
    "num_high_mag_subtexts": 3,
    "filter_alpha": 0.5,
    "contrastive_lambda": 0.5,
    "variant": "paper",
    "vlm_path": None,
    "dataset_csv": None,
    "split_dir": None,
    "resume": False,
    "num_workers": 1,
    "cache_gb": None,
    "cache_half": False,
    "dry_run": False,
    "precision": "fp32",
    "tgdf": "full",
    "htcl": "class_wise",
    "hier_aggregator": "msa",
    "hier_direction": "both",
    "scales": "both",
    "text_format": "both",
    "top_k_low": 2,
    "top_k_high": 100,
}
CHOICES = {
    "opt": "adam sgd",
    "bag_loss": "ce svm focal",
    "class_token_position": "end middle front",
    "variant": "paper released",
    "precision": "fp32 bf16",
    "tgdf": "full no_mask_propagation high_only none",
    "htcl": "class_wise instance_wise share_parent none",
    "hier_aggregator": "msa maa saa attention sage mlp",
    "hier_direction": "both up down none",
    "scales": "both low high",
    "text_format": "both term explanation",
}
FLAGS = [name for name, default in PUBLISHED_DEFAULTS.items() if default is False]


def parse(*argv: str) -> Config:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_options(parser)
    return Config(**vars(parser.parse_args(argv)))


def example(name: str) -> tuple[str, Any]:
    """A value on the command line that is not the default, and what it is read as."""
    default = PUBLISHED_DEFAULTS[name]
    if name in CHOICES:
        value = CHOICES[name].split()[1]
        return value, value
    if isinstance(default, bool):
        return "true", True
    if isinstance(default, int) or name == "feature_dim":
        return "7", 7
    if isinstance(default, float) or name == "cache_gb":
        return "0.25", 0.25
    return ("HiVE_MIL", "HiVE_MIL") if name == "model_type" else ("something", "something")


@pytest.mark.parametrize("name", PUBLISHED_DEFAULTS)
def test_default(name: str) -> None:
    value = getattr(parse(), name)
    assert value == PUBLISHED_DEFAULTS[name]
    assert type(value) is type(PUBLISHED_DEFAULTS[name])


@pytest.mark.parametrize("name", PUBLISHED_DEFAULTS)
def test_both_spellings(name: str) -> None:
    text, value = example(name)
    for spelling in (name, name.replace("_", "-")):
        assert getattr(parse(f"--{spelling}", text), name) == value
        assert getattr(parse(f"--{spelling}={text}"), name) == value


def test_given_options_alone_are_in_the_namespace() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    assert vars(parser.parse_args(["--few-shot-num", "16", "--log-data"])) == {"few_shot_num": 16, "log_data": True}


@pytest.mark.parametrize(("text", "value"), [("5", 5), ("5x", 5), ("10X", 10), ("20x", 20), ("40", 40)])
@pytest.mark.parametrize("name", ["low_mag", "high-mag"])
def test_magnifications_with_and_without_x(name: str, text: str, value: int) -> None:
    assert getattr(parse(f"--{name}", text), name.replace("-", "_")) == value


@pytest.mark.parametrize("name", FLAGS)
def test_flags_with_and_without_value(name: str) -> None:
    assert getattr(parse(f"--{name}"), name) is True
    assert getattr(parse(f"--{name}", "--seed", "3"), name) is True
    for text in ("True", "true", "1", "yes"):
        assert getattr(parse(f"--{name}", text), name) is True
    for text in ("False", "false", "0", "no"):
        assert getattr(parse(f"--{name}", text), name) is False


@pytest.mark.parametrize("name", CHOICES)
def test_choices(name: str) -> None:
    for value in CHOICES[name].split():
        assert getattr(parse(f"--{name}", value), name) == value
    assert sorted(OPTIONS[name].choices or ()) == sorted(CHOICES[name].split())


@pytest.mark.parametrize(
    "argv",
    [
        *[[f"--{name}", "no_such_choice"] for name in (*CHOICES, "model_type")],
        *[[f"--{name}", "maybe"] for name in FLAGS],
        *[[f"--{name}", "several"] for name in ("seed", "k", "lr", "reg", "low_mag", "feature_dim", "label_frac")],
        *[[f"--{name}", "0"] for name in ("k", "max_epochs", "few_shot_num", "feature_dim", "top_k_low", "top_k_high")],
        *[[f"--{name}", "0"] for name in ("num_low_mag_texts", "num-high-mag-subtexts", "num-context-tokens")],
        ["--num_workers", "-1"],
        ["--k_start", "-2"],
        ["--seed"],
        ["--no_such_option"],
        ["--max_epoch", "3"],  # no abbreviations
    ],
    ids=" ".join,
)
def test_refused_with_exit_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(*argv)
    assert stop.value.code == 2
    # the message names the option, in the spelling given or in both
    assert argv[0].split("_")[0].rstrip("-") in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"k": 3}, [0, 1, 2]),
        ({"k_start": 2}, [2, 3, 4]),
        ({"k_end": 2}, [0, 1]),
        ({"k_start": 1, "k_end": 3}, [1, 2]),
        ({"k_start": 0, "k_end": 5}, [0, 1, 2, 3, 4]),
        ({"k_end": 0}, []),
        ({"k_start": 5}, []),
        ({"k_start": 3, "k_end": 2}, []),
    ],
)
def test_folds(options: dict[str, Any], expected: list[int]) -> None:
    assert list(Config(**options).folds()) == expected


def test_run_path() -> None:
    config = Config(task="TCGA_RCC", feature_extractor="conch", few_shot_num=8, seed=3, results_dir="out")
    assert config.run_path() == Path("out/TCGA_RCC/conch/8/TCGA_RCC_conch_HiVE_MIL_8_s3")
    # a quick try takes no real run's place
    assert replace(config, testing=True).run_path().name == "TCGA_RCC_conch_HiVE_MIL_8_s3_testing"


def test_where_a_tasks_files_are_looked_for() -> None:
    config = Config(task="T", few_shot_num=4, LLM="gpt")
    assert config.csv_path() == PROJECT / "dataset_csv" / "T.csv"
    assert config.split_path(2) == PROJECT / "splits" / "T" / "T_4" / "splits_2.csv"
    assert config.prompt_path() == PROJECT / "text_prompt" / "HiVE_MIL" / "gpt" / "T.json"
    named = Config(task="T", dataset_csv="a.csv", split_dir="folds", text_prompt="b.json")
    assert (named.csv_path(), named.prompt_path()) == (Path("a.csv"), Path("b.json"))
    assert named.split_path(2) == Path("folds/splits_2.csv")


def test_record_can_be_read_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "features").mkdir()
    monkeypatch.chdir(tmp_path)
    config = Config(task="T", data_root_dir="features", vlm_path="owner/model", early_stopping=True)
    record = config.to_dict()
    assert record["data_root_dir"] == str(tmp_path / "features")
    assert record["vlm_path"] == "owner/model"  # a hub id stays one
    assert Config(**record).run_path() == config.run_path()
    assert set(record) == set(OPTIONS)
