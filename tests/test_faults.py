"""Every mistake a user can make: exit code 2, a message that names the file (or option), what was found, what was
expected and the command that mends it; no traceback, and nothing written."""

import functools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import SimulatedTask

SLIDE = "SIM-0003"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\nsize 605247071\n"
Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def one_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build CLIP's vocabulary once, not for every run: it takes longer than all checks together."""
    import open_clip

    monkeypatch.setattr(open_clip, "SimpleTokenizer", standard_tokenizer)


@functools.cache
def standard_tokenizer() -> object:
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


@pytest.fixture
def task(simulated: SimulatedTask, tmp_path: Path) -> SimulatedTask:
    """A copy of the simulated task that a test may break; its CLIP is the original."""
    root = tmp_path / "task"
    shutil.copytree(simulated.root, root, ignore=shutil.ignore_patterns("planted", "tinyclip_20x", "tinyclip"))
    (root / "tinyclip").symlink_to(simulated.root / "tinyclip")
    return SimulatedTask(root, simulated.shots)


def own_clip(task: SimulatedTask) -> Path:
    """The task's CLIP as a copy, so that it can be broken."""
    folder = task.root / "tinyclip"
    original = folder.resolve()
    folder.unlink()
    shutil.copytree(original, folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the memory of the checks."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "checked_features.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def count_faults(message: str) -> int:
    """How many faults a message lists, one a line, the first 40 of them."""
    lines = message.splitlines()
    assert lines[0].startswith("error: "), message
    headed = re.fullmatch(r"error: (\d+) faults", lines[0])
    number = int(headed[1]) if headed else 1
    if number > 40:
        assert lines.pop() == f"  ... and {number - 40} more"
    assert len(lines) == min(number, 40) + bool(headed), message
    return number


@pytest.fixture
def refused(task: SimulatedTask, run_main: Callable, tmp_path: Path) -> Refused:
    """Run main.py on ``task`` and expect ``faults`` faults (None: a message of argparse); returns the message."""

    def run(*options: str, faults: int | None = 1, without: str = "") -> str:
        argv = task.options(tmp_path / "results", *options)
        if without:
            place = argv.index(without)
            del argv[place : place + 2]
        code, out, err = run_main(argv)
        assert code == 2, f"{out}\n{err}"
        assert "Traceback" not in out + err
        assert "epoch" not in out
        assert contents(tmp_path / "results") == {}
        if faults is None:
            assert err.startswith("usage: ")
        else:
            assert count_faults(err) == faults
        return err

    return run


def test_the_unbroken_copy_passes_all_checks(task: SimulatedTask, run_main: Callable, tmp_path: Path) -> None:
    code, out, err = run_main(task.options(tmp_path / "results", "--dry_run"))
    assert (code, err) == (0, "")
    assert "all checks passed" in out


# ---- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--tgdf nonsense", ("--tgdf", "'nonsense'", "no_mask_propagation", "high_only")),
        ("--variant publication", ("--variant", "'publication'", "released")),
        ("--nonsense 3", ("unrecognized arguments", "--nonsense")),
        ("--max_epoch 3", ("unrecognized arguments", "--max_epoch")),  # no abbreviations
        ("--k_start 7", ("--k_start 7", "folds from 0 up to 2")),
        ("--k_start 1 --k_end 1", ("--k_start 1 --k_end 1", "folds from 0 up to 2")),
        ("--k_end 3", ("--k_end 3", "folds from 0 up to 2")),
        ("--label_frac 0", ("--label_frac 0", "above 0, at most 1")),
        ("--label_frac 1.5", ("--label_frac 1.5", "above 0, at most 1")),
        ("--few_shot_num 0", ("--few_shot_num", "0 is less than 1")),
        ("--max-epochs many", ("--max_epochs", "'many'", "int")),
        ("--low-mag five", ("--low_mag", "'five'")),
        ("--early_stopping perhaps", ("--early_stopping", "'perhaps'", "neither true nor false")),
        ("--task=", ("error: --task missing",)),
        ("--task= --data_root_dir=", ("error: --task and --data_root_dir missing",)),
    ],
)
def test_unusable_options(refused: Refused, options: str, expected: tuple[str, ...]) -> None:
    message = refused(*options.split(), faults=None)
    assert all(part in message for part in expected), message


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "meta", "cuda:x"])
def test_a_device_that_is_not_there(refused: Refused, device: str) -> None:
    message = refused("--device", device)
    assert f"--device {device}: " in message
    assert "expected cpu" in message


def test_a_feature_width_other_than_the_text_towers(refused: Refused) -> None:
    assert "--feature_dim 32: the text features of this model are 16 wide" in refused("--feature_dim", "32")


def test_results_cannot_go_where_a_file_lies(task: SimulatedTask, run_main: Callable, tmp_path: Path) -> None:
    file = tmp_path / "results.csv"
    file.write_text("mine")
    code, _, err = run_main(task.options(file))
    assert code == 2
    assert str(file) in err
    assert file.read_text() == "mine"


# ---- features --------------------------------------------------------------------------------------------------------


def change(path: Path, name: str, new: Callable[[np.ndarray], np.ndarray] | None) -> None:
    """Replace a data set of an HDF5 file, or remove it."""
    with h5py.File(path, "r+") as file:
        values = file[name][()]
        del file[name]
        if new is not None:
            file[name] = new(values)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def first_is(value: float, kind: type = np.float32) -> Callable[[np.ndarray], np.ndarray]:
    """Put ``value`` at the first place."""

    def new(values: np.ndarray) -> np.ndarray:
        values = values.astype(kind)
        values.flat[0] = value
        return values

    return new


def no_patches(path: Path) -> None:
    for name in ("features", "coords"):
        change(path, name, lambda values: values[:0])


def shortened(path: Path) -> None:
    for name in ("features", "coords", "mask"):
        change(path, name, lambda values: values[:-1])


def group_of_features(path: Path) -> None:
    change(path, "features", None)
    with h5py.File(path, "r+") as file:
        file.create_group("features")["values"] = np.zeros(3)


EXTRACT, LINK = "extract_features.py --wsi-dir SLIDES", "create_hierarchical_features.py"
LOW, HIGH = "tinyclip_5x", "hierarchical_tinyclip_5x_20x"
# folder, what is done to the slide's file there, what the message says besides the file's name
SLIDE_FAULTS = {
    "low_missing": (LOW, Path.unlink, ("file not found", EXTRACT)),
    "high_missing": (HIGH, Path.unlink, ("file not found", LINK)),
    "low_cut_off": (LOW, cut, ("not a readable HDF5 file", EXTRACT)),
    "high_cut_off": (HIGH, cut, ("not a readable HDF5 file", LINK)),
    "low_no_bytes": (LOW, lambda path: path.write_bytes(b""), ("not a readable HDF5 file",)),
    "high_no_hdf5": (HIGH, lambda path: path.write_bytes(LFS_POINTER), ("not a readable HDF5 file",)),
    "low_without_coords": (LOW, lambda path: change(path, "coords", None), ("'coords'", "found ['features']")),
    "high_without_features": (
        HIGH, lambda path: change(path, "features", None), ("'features'", "found ['coords', 'mask']"),
    ),
    "low_features_a_group": (LOW, group_of_features, ("'features'",)),
    "low_narrow": (
        LOW, lambda path: change(path, "features", lambda x: x[:, :8]), ("8 wide, expected 16", "--vlm_path"),
    ),
    "high_wide": (
        HIGH, lambda path: change(path, "features", lambda x: x.repeat(2, -1)), ("32 wide, expected 16", "--vlm_path"),
    ),
    "low_flat": (LOW, lambda path: change(path, "features", np.ravel), ("shape (", "expected (parents, width)")),
    "high_flat": (
        HIGH, lambda path: change(path, "features", lambda x: x[:, 0]),
        ("16), expected (parents, children, width)",),
    ),
    "low_nan": (LOW, lambda path: change(path, "features", first_is(np.nan)), ("1 of ", "NaN or infinite")),
    "high_nan": (HIGH, lambda path: change(path, "features", first_is(np.nan)), ("1 of ", "NaN or infinite")),
    "low_infinite": (LOW, lambda path: change(path, "features", first_is(-np.inf)), ("1 of ", "NaN or infinite")),
    "high_half_infinite": (
        HIGH, lambda path: change(path, "features", first_is(np.inf, np.float16)), ("1 of ", "NaN or infinite"),
    ),
    "low_beyond_float32": (LOW, lambda path: change(path, "features", first_is(1e300, np.float64)), ("1 of ",)),
    "low_integers": (LOW, lambda path: change(path, "features", lambda x: x.astype(int)), ("int64", "floating point")),
    "low_no_patches": (LOW, no_patches, ("shape (0, 16)", "at least one patch")),
    "high_no_patches": (HIGH, no_patches, ("shape (0, 16, 16)", "at least one patch")),
    "low_coords_three_wide": (
        LOW, lambda path: change(path, "coords", lambda x: x[:, [0, 1, 1]]),
        ("coords are int64 of shape (", ", 3), expected ", ", 2)"),
    ),
    "high_coords_of_parents": (
        HIGH, lambda path: change(path, "coords", lambda x: x[:, 0]),
        ("coords are int64 of shape (", ", expected ", ", 16, 2)"),
    ),
    "high_mask_narrow": (
        HIGH, lambda path: change(path, "mask", lambda x: x[:, :9]),
        ("mask is bool (", ", 9), expected bool (", ", 16)"),
    ),
    "high_fewer_parents": (HIGH, shortened, (" parents found, but ", f"{LOW}/{SLIDE}.h5 has ")),
}  # fmt: skip


@pytest.mark.parametrize("case", SLIDE_FAULTS)
def test_a_faulty_slide_file(task: SimulatedTask, refused: Refused, case: str) -> None:
    folder, break_file, expected = SLIDE_FAULTS[case]
    file = task.features / folder / f"{SLIDE}.h5"
    break_file(file)
    message = refused()
    assert message.startswith(f"error: {file}: ")
    assert all(part in message for part in expected), message
    if "--vlm_path" not in expected:  # for another width it is not clear which of the two is wrong
        names = f" --dataset-root-path {task.root}/features --dataset-name simulated --feature-extractor-name tinyclip"
        assert re.search(rf"python ({EXTRACT}|{LINK}){re.escape(names)}", message), message


def test_the_count_of_parents_of_both_files_is_told(task: SimulatedTask, refused: Refused) -> None:
    file = task.features / HIGH / f"{SLIDE}.h5"
    with h5py.File(file) as opened:
        parents = len(opened["features"])
    shortened(file)
    message = refused()
    assert f": {parents - 1} parents found, but " in message
    assert f"{SLIDE}.h5 has {parents};" in message


def test_a_missing_folder_of_features(task: SimulatedTask, refused: Refused) -> None:
    shutil.rmtree(task.features)
    message = refused()
    assert message.startswith(f"error: {task.features}: no such folder")
    assert f"python extract_features.py --wsi-dir SLIDES --dataset-root-path {task.root}/features " in message


# ---- the table of slides ---------------------------------------------------------------------------------------------


def change_text(path: Path, old: str, new: str, times: int = -1) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, times))


TABLE_FAULTS = {
    "missing": (Path.unlink, ("--dataset_csv", "python create_dataset_csv.py")),
    "no_bytes": (lambda path: path.write_bytes(b""), ("not a readable CSV",)),
    "no_text": (lambda path: path.write_bytes(b"\xff\xfe\x00slide"), ("not a readable CSV",)),
    "headers_only": (lambda path: path.write_text("case_id,slide_id,label\n"), ("no slides",)),
    "slide_twice": (
        lambda path: path.write_text(path.read_text() + f"p,{SLIDE},SIMULATED_A,40\n"), ("more than once", SLIDE),
    ),
    "no_column_slide_id": (
        lambda path: change_text(path, "slide_id", "slide"), ("no column slide_id", "found ['case_id', 'slide', "),
    ),
    "no_column_label": (lambda path: change_text(path, ",label,", ",class,"), ("label", "at least two classes")),
    "one_class": (
        lambda path: change_text(path, "SIMULATED_B", "SIMULATED_A"), ("['SIMULATED_A']", "at least two classes"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE_FAULTS)
def test_a_faulty_table_of_slides(task: SimulatedTask, refused: Refused, case: str) -> None:
    file = task.root / "simulated.csv"
    break_file, expected = TABLE_FAULTS[case]
    break_file(file)
    message = refused()
    assert message.startswith(f"error: {file}: ")
    assert all(part in message for part in expected), message


def test_a_label_without_descriptions(task: SimulatedTask, refused: Refused) -> None:
    change_text(task.root / "simulated.csv", "SIMULATED_B", "SIMULATED_C")
    message = refused()
    assert f"{task.root / 'simulated.json'}: no descriptions of the class 'SIMULATED_C'" in message
    assert "found ['SIMULATED_A', 'SIMULATED_B']" in message
    assert "python create_text_prompt.py --task simulated --classes SIMULATED_A SIMULATED_C" in message


# ---- splits ----------------------------------------------------------------------------------------------------------


def read_ids(file: Path) -> dict[str, list[str]]:
    table = pd.read_csv(file, index_col=0, dtype=str)
    return {name: table[name].dropna().tolist() for name in table}


def write_ids(file: Path, ids: dict[str, list[str]]) -> None:
    pd.DataFrame({name: pd.Series(members, dtype=str) for name, members in ids.items()}).to_csv(file)


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_split_without_a_class(task: SimulatedTask, refused: Refused, part: str) -> None:
    file = task.split_dir / "splits_1.csv"
    ids = read_ids(file)
    write_ids(file, {**ids, part: [slide_id for slide_id in ids[part] if slide_id.startswith("SIM-0")]})
    message = refused()
    assert f"{file}: no slide of class 'SIMULATED_B' in {part}, expected slides of " in message
    assert "['SIMULATED_A', 'SIMULATED_B']" in message


@pytest.mark.parametrize(("first", "second"), [("train", "test"), ("val", "test"), ("val", "val")])
def test_a_slide_that_stands_in_the_splits_twice(
    task: SimulatedTask, refused: Refused, first: str, second: str
) -> None:
    file = task.split_dir / "splits_0.csv"
    ids = read_ids(file)
    ids[second].append(ids[first][0])
    write_ids(file, ids)
    assert f"{file}: slide {ids[first][0]} stands in {first} and {second}, expected in one split" in refused()


def test_a_slide_of_a_split_that_is_not_in_the_table(task: SimulatedTask, refused: Refused) -> None:
    file = task.split_dir / "splits_0.csv"
    ids = read_ids(file)
    ids["val"] += ["SIM-9999", "SIM-9998"]
    write_ids(file, ids)
    assert f"{file}: 2 slides are not in the table of slides (SIM-9999, SIM-9998)" in refused()


def test_a_slide_of_a_split_that_has_no_label(task: SimulatedTask, refused: Refused) -> None:
    change_text(task.root / "simulated.csv", f"{SLIDE},SIMULATED_A", f"{SLIDE},")
    message = refused(faults=2)  # one for each fold
    for fold in range(2):
        file = task.split_dir / f"splits_{fold}.csv"
        assert f"{file}: 1 slides have no label in the table of slides ({SLIDE})" in message


def test_no_folder_of_splits(task: SimulatedTask, refused: Refused) -> None:
    shutil.rmtree(task.split_dir)
    message = refused(faults=2)
    for fold in range(2):
        assert f"{task.split_dir / f'splits_{fold}.csv'}: no such split file" in message
    assert "--split_dir" in message
    assert "python create_splits.py --task " in message


SPLIT_FAULTS = {
    "missing": (Path.unlink, ("no such split file", "--split_dir", "python create_splits.py --task ")),
    "no_column_val": (lambda path: change_text(path, ",val,", ",valid,", 1), ("'val'", "'train', 'valid', 'test'")),
    "no_bytes": (lambda path: path.write_bytes(b""), ("not a readable CSV",)),
    "no_text": (lambda path: path.write_bytes(b"\xff\xfe\x00train"), ("not a readable CSV",)),
}


@pytest.mark.parametrize("case", SPLIT_FAULTS)
def test_a_faulty_split_file(task: SimulatedTask, refused: Refused, case: str) -> None:
    file = task.split_dir / "splits_1.csv"
    break_file, expected = SPLIT_FAULTS[case]
    break_file(file)
    message = refused()
    assert message.startswith(f"error: {file}: ")
    assert all(part in message for part in expected), message


# ---- descriptions ----------------------------------------------------------------------------------------------------


def change_json(path: Path, new: Callable) -> None:
    path.write_text(json.dumps(new(json.loads(path.read_text()))))


def without_last(by_class: dict) -> dict:
    by_class["SIMULATED_B"].popitem()
    return by_class


def with_entry(value: object) -> Callable[[dict], dict]:
    """Replace the first explanation of SIMULATED_B."""

    def new(by_class: dict) -> dict:
        by_class["SIMULATED_B"][next(iter(by_class["SIMULATED_B"]))] = value
        return by_class

    return new


PROMPT_FAULTS = {
    "missing": (
        Path.unlink,
        ("--text_prompt", "python create_text_prompt.py --task simulated --classes SIMULATED_A SIMULATED_B"),
    ),
    "cut_off": (cut, ("not valid JSON",)),
    "no_text": (lambda path: path.write_bytes(b'{"SIMULATED_A": "\xff"}'), ("not valid JSON",)),
    "term_twice": (
        lambda path: change_text(path, "Simulated detail 0.1", "Simulated detail 0.0"),
        ("'Simulated detail 0.0' stands there twice",),
    ),
    "class_twice": (
        lambda path: change_text(path, "SIMULATED_B", "SIMULATED_A"), ("'SIMULATED_A' stands there twice",),
    ),
    "one_too_few": (
        lambda path: change_json(path, without_last),
        ("'SIMULATED_B' has 15 descriptions, expected 16 (4 low ones and 3 high ones for each",),
    ),
    "empty": (lambda path: change_json(path, with_entry(" ")), ("'SIMULATED_B' has an empty term or explanation",)),
    "number": (lambda path: change_json(path, with_entry(3)), ("'SIMULATED_B' is not of the form {term: ",)),
    "list": (lambda path: change_json(path, list), ("found a list, expected {class: {term: explanation}}",)),
}  # fmt: skip


@pytest.mark.parametrize("case", PROMPT_FAULTS)
def test_a_faulty_file_of_descriptions(task: SimulatedTask, refused: Refused, case: str) -> None:
    file = task.root / "simulated.json"
    break_file, expected = PROMPT_FAULTS[case]
    break_file(file)
    message = refused()
    assert message.startswith(f"error: {file}: ")
    assert all(part in message for part in expected), message


# ---- the vision-language model ---------------------------------------------------------------------------------------


def without_text_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    kept = {name: value for name, value in load_file(file).items() if not name.startswith("text_model.encoder")}
    save_file(kept, file, metadata={"format": "pt"})


def wider_config(folder: Path) -> None:
    wider = {"hidden_size": 32}
    change_json(folder / "config.json", lambda config: {**config, "text_config": {**config["text_config"], **wider}})


CLIP_FAULTS = {
    "no_config": (lambda folder: (folder / "config.json").unlink(), ("no config.json found", "Hugging Face CLIP")),
    "not_clip": (
        lambda folder: change_json(folder / "config.json", lambda config: {**config, "model_type": "bert"}),
        ("config.json: model_type is 'bert', expected 'clip'",),
    ),
    "config_cut_off": (lambda folder: cut(folder / "config.json"), ("config.json: not valid JSON",)),
    "config_a_list": (lambda folder: (folder / "config.json").write_text("[]"), ("config.json", "expected")),
    "no_weights": (lambda folder: (folder / "model.safetensors").unlink(), ("model.safetensors", "--vlm_path")),
    "weights_cut_off": (lambda folder: cut(folder / "model.safetensors"), ("--vlm_path",)),
    "weights_a_pointer": (lambda folder: (folder / "model.safetensors").write_bytes(LFS_POINTER), ("--vlm_path",)),
    "no_text_weights": (
        without_text_weights, ("not a complete CLIP text tower: 32 weights are missing", "text_model.encoder.layers.0"),
    ),
    "other_widths": (wider_config, ("not a complete CLIP text tower", "have another shape than config.json says")),
    "tokenizer_no_json": (lambda folder: (folder / "tokenizer.json").write_text("{"), ("tokenizer",)),
}  # fmt: skip


@pytest.mark.parametrize("case", CLIP_FAULTS)
def test_a_faulty_folder_of_clip(task: SimulatedTask, refused: Refused, case: str) -> None:
    folder = own_clip(task)
    break_folder, expected = CLIP_FAULTS[case]
    break_folder(folder)
    message = refused()
    assert str(folder) in message
    assert all(part in message for part in expected), message


def test_a_local_folder_of_clip_is_no_hub_id_to_download(task: SimulatedTask, refused: Refused) -> None:
    folder = own_clip(task)
    (folder / "model.safetensors").unlink()
    assert f"hf download {folder}" not in refused()


@pytest.mark.parametrize("source", ["{root}/nowhere", "./nowhere", "nowhere", "two/slashes/nowhere"])
def test_a_folder_of_clip_that_is_not_there(task: SimulatedTask, refused: Refused, source: str) -> None:
    source = source.format(root=task.root)
    assert f"--vlm_path {source}: no such folder" in refused("--vlm_path", source)


def test_a_file_instead_of_a_folder_of_clip(task: SimulatedTask, refused: Refused) -> None:
    file = task.root / "tinyclip" / "config.json"
    message = refused("--vlm_path", str(file))
    assert f"{file}: is a file; expected the folder of a Hugging Face CLIP model" in message


def test_a_clip_of_another_width_is_told_for_all_files_but_hides_no_other_fault(
    task: SimulatedTask, refused: Refused
) -> None:
    from models.tiny_clip import save_tiny_clip

    save_tiny_clip(task.root / "narrow", width=8)
    (task.root / "simulated.json").unlink()
    message = refused("--vlm_path", str(task.root / "narrow"), faults=1 + 2 * 28)
    assert f"{task.root / 'simulated.json'}: " in message
    for folder in (LOW, HIGH):
        assert f"{task.features / folder / SLIDE}.h5: features are 16 wide, expected 8" in message


def test_a_feature_extractor_of_unknown_model(refused: Refused) -> None:
    message = refused(without="--vlm_path")
    assert "--feature_extractor tinyclip: its vision-language model is not known; name it with --vlm_path" in message


def test_a_hub_that_cannot_be_reached(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import CLIPModel

    def unreachable(source: str, **_: object) -> None:
        raise OSError(f"We couldn't connect to 'https://huggingface.co' to load {source}.\nCheck your internet.")

    monkeypatch.setattr(CLIPModel, "from_pretrained", unreachable)
    message = refused("--vlm_path", "vinid/plip")
    assert "'vinid/plip'" in message
    assert "couldn't connect" in message
    assert "--vlm_path" in message
    assert "hf download vinid/plip --local-dir FOLDER" in message


# ---- CONCH -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def conch_folder(task: SimulatedTask, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for CONCH's files in place of conch/, which may hold the real ones."""
    import conch.tokenizer
    import models.text_towers

    folder = task.root / "conch"
    folder.mkdir()
    monkeypatch.setattr(conch.tokenizer, "HERE", folder)
    monkeypatch.setattr(models.text_towers, "CONCH_WEIGHTS", folder / "pytorch_model.bin")
    installed = [entry for entry in conch.tokenizer.sys.path if not (Path(entry) / "conch/open_clip_custom").is_dir()]
    monkeypatch.setattr(conch.tokenizer.sys, "path", installed)
    return folder


def small_conch(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a small CONCH; its sizes are written beside them."""
    from open_clip.transformer import TextTransformer

    sizes = {"context_length": 127, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1, "embed_cls": True}
    sizes["pad_id"] = 0
    tower = TextTransformer(**sizes, output_dim=16, output_tokens=True, correct_cls_mask=False)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 16, "text_cfg": sizes}}))
    state = {f"text.{name}": value for name, value in tower.state_dict().items()}
    return {**state, "logit_scale": torch.tensor(4.0)}


def test_conch_without_its_weights(task: SimulatedTask, refused: Refused, conch_folder: Path) -> None:
    features = task.features.rename(task.features.with_name("simulated_conch"))
    for folder in (LOW, HIGH):
        (features / folder).rename(features / folder.replace("tinyclip", "conch"))
    message = refused("--feature_extractor", "conch", without="--vlm_path")
    assert f"{conch_folder / 'pytorch_model.bin'}: CONCH's weights are not there" in message
    assert "MahmoodLab/CONCH" in message
    assert "--vlm_path" in message


def test_a_weight_file_of_conch_that_is_not_there(refused: Refused, conch_folder: Path) -> None:
    weights = conch_folder / "other.bin"
    assert f"{weights}: CONCH's weights are not there" in refused("--vlm_path", str(weights))


def test_conch_without_its_tokenizer(refused: Refused, conch_folder: Path) -> None:
    weights = conch_folder / "pytorch_model.bin"
    torch.save(small_conch(conch_folder), weights)
    message = refused("--vlm_path", str(weights))
    assert "conch_byte_level_bpe_uncased.json: CONCH's tokenizer file is not there" in message
    assert f"beside {weights}" in message
    assert "github.com/mahmoodlab/CONCH" in message


def save_conch(**changes: object) -> Callable[[Path], None]:
    """Save a small CONCH's weights, changed: a value of None takes a tensor away."""

    def save(weights: Path) -> None:
        state = {**small_conch(weights.parent), **changes}
        torch.save({name: value for name, value in state.items() if value is not None}, weights)

    return save


CONCH_FAULTS = {
    "pointer": (lambda weights: weights.write_bytes(LFS_POINTER), "pytorch_model.bin"),
    "no_bytes": (lambda weights: weights.write_bytes(b""), "pytorch_model.bin"),
    "cut_off": (lambda weights: (save_conch()(weights), cut(weights)), "pytorch_model.bin"),
    "list": (lambda weights: torch.save([torch.ones(2)], weights), "pytorch_model.bin"),
    "a_tensor_missing": (save_conch(**{"text.cls_emb": None}), "cls_emb"),
    "no_logit_scale": (save_conch(logit_scale=None), "logit_scale"),
    "another_shape": (save_conch(**{"text.text_projection": torch.ones(16, 9)}), "text_projection"),
    "tokenizer_no_json": (save_conch(), "conch_byte_level_bpe_uncased.json"),
}


@pytest.mark.parametrize("case", CONCH_FAULTS)
def test_faulty_files_of_conch(refused: Refused, conch_folder: Path, case: str) -> None:
    (conch_folder / "conch_byte_level_bpe_uncased.json").write_text("{")
    weights = conch_folder / "pytorch_model.bin"
    make, named = CONCH_FAULTS[case]
    make(weights)
    message = refused("--vlm_path", str(weights))
    assert str(conch_folder) in message
    assert named in message
    assert "expected" in message


# ---- several faults --------------------------------------------------------------------------------------------------


def test_five_faults_at_once_are_all_listed(task: SimulatedTask, refused: Refused) -> None:
    missing, broken = task.features / LOW / f"{SLIDE}.h5", task.features / HIGH / "SIM-1002.h5"
    missing.unlink()
    change(broken, "features", first_is(np.nan))
    split = task.split_dir / "splits_0.csv"
    ids = read_ids(split)
    write_ids(split, {**ids, "test": [*ids["test"], ids["train"][0]]})
    change_json(task.root / "simulated.json", without_last)
    message = refused("--feature_dim", "32", faults=5)
    for part in (
        f"  - {missing}: file not found",
        f"  - {broken}: 1 of ",
        f"  - {split}: slide {ids['train'][0]} stands in train and test",
        f"  - {task.root / 'simulated.json'}: class 'SIMULATED_B' has 15 descriptions",
        "  - --feature_dim 32: ",
    ):
        assert part in message


def test_a_missing_table_hides_no_other_missing_file(task: SimulatedTask, refused: Refused) -> None:
    (task.root / "tinyclip").unlink()
    (task.root / "simulated.csv").unlink()
    (task.root / "simulated.json").unlink()
    (task.split_dir / "splits_1.csv").unlink()
    shutil.rmtree(task.features)
    message = refused(faults=5)
    for name in ("tinyclip", "simulated.csv", "simulated.json", "splits/simulated_4/splits_1.csv"):
        assert f"{task.root / name}: " in message
    assert f"{task.features}: " in message


@pytest.mark.parametrize("epochs", ["1", "2"])
def test_a_run_whose_weights_overflow_says_so(
    task: SimulatedTask, run_main: Callable, tmp_path: Path, epochs: str
) -> None:
    options = ("--lr", "1e38", "--opt", "sgd", "--max_epochs", epochs)
    code, _, err = run_main(task.options(tmp_path / "results", *options))
    assert code == 2
    assert count_faults(err) == 1
    assert "--lr" in err
    assert "fold 0" in err


# ---- folders of runs -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished_run(simulated: SimulatedTask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a run of one epoch over both folds. Read only."""
    import main

    results = tmp_path_factory.mktemp("finished")
    main.main(simulated.options(results, "--max_epochs", "1"))
    return results


@pytest.fixture
def results(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run's results."""
    return Path(shutil.copytree(finished_run, tmp_path / "results"))


def other_clip(task: SimulatedTask) -> None:
    from models.tiny_clip import save_tiny_clip

    (task.root / "tinyclip").unlink()
    save_tiny_clip(task.root / "tinyclip", width=16, seed=5)


def swapped_train_and_val(task: SimulatedTask) -> None:
    change_text(task.split_dir / "splits_0.csv", "train,val", "val,train")


OTHER_RUNS = {
    "lr": (("--lr", "5e-4"), None, "lr 0.001, now 0.0005"),
    "variant": (("--variant", "released"), None, "variant 'paper', now 'released'"),
    "epochs": (("--max_epochs", "2"), None, "max_epochs 1, now 2"),
    "splits": ((), swapped_train_and_val, "splits_0 has changed since"),
    "table": (
        (), lambda task: change_text(task.root / "simulated.csv", "simulated_0001", "p"),
        "dataset_csv has changed since",
    ),
    "clip": ((), other_clip, "text_tower has changed since"),
    "features": (
        (), lambda task: change(task.features / HIGH / f"{SLIDE}.h5", "features", lambda x: x * 2),
        "features_0 has changed since",
    ),
    "descriptions": (
        (), lambda task: change_text(task.root / "simulated.json", "pale", "dark"), "text_prompt has changed since",
    ),
}  # fmt: skip


@pytest.mark.parametrize("resume", [(), ("--resume",)], ids=["again", "resume"])
@pytest.mark.parametrize("case", OTHER_RUNS)
def test_a_folder_that_holds_another_run_is_left_as_it_is(
    task: SimulatedTask, results: Path, run_main: Callable, case: str, resume: tuple[str, ...]
) -> None:
    options, change_task, difference = OTHER_RUNS[case]
    if change_task:
        change_task(task)
    before = contents(results)
    code, out, err = run_main(task.options(results, "--max_epochs", "1", *options, *resume))
    assert code == 2, out
    assert count_faults(err) == 1
    assert f"{task.run_folder(results)}: holds a run with other settings (" in err
    assert difference in err
    assert "--results_dir" in err
    assert contents(results) == before


def test_a_finished_run_is_not_started_over(simulated: SimulatedTask, results: Path, run_main: Callable) -> None:
    before = contents(results)
    code, out, err = run_main(simulated.options(results, "--max_epochs", "1"))
    assert code == 2, out
    assert f"{simulated.run_folder(results)}: fold 0, 1 of this run is finished" in err
    assert "--resume" in err
    assert "--results_dir" in err
    assert contents(results) == before


@pytest.mark.parametrize("name", ["config.json", "fold_0.json", "resume_0.pt"])
def test_a_damaged_file_of_a_run_is_named(
    simulated: SimulatedTask, results: Path, run_main: Callable, name: str
) -> None:
    folder = simulated.run_folder(results)
    if name == "resume_0.pt":
        (folder / "fold_0.json").unlink()
    (folder / name).write_bytes(b"{")
    before = contents(results)
    code, out, err = run_main(simulated.options(results, "--max_epochs", "1", "--resume"))
    assert code == 2, out
    assert str(folder / name) in err
    after = contents(results)
    assert after.keys() == before.keys()
    changed = {file for file in before if before[file] != after[file]}
    assert changed <= {str((folder / "config.json").relative_to(results))} - {str((folder / name).relative_to(results))}


# ---- predict.py ------------------------------------------------------------------------------------------------------


@pytest.fixture
def predict_refused(simulated: SimulatedTask, results: Path, run_main: Callable, tmp_path: Path) -> Refused:
    """Run predict.py on the first checkpoint of ``results`` and expect a refusal; returns the message."""

    def run(*options: str, faults: int = 1) -> str:
        output = tmp_path / "predictions.csv"
        checkpoint = simulated.run_folder(results) / "s_0_checkpoint.pt"
        code, out, err = run_main(["--checkpoint", str(checkpoint), "--output", str(output), *options], "predict")
        assert code == 2, f"{out}\n{err}"
        assert "Traceback" not in out + err
        assert not output.exists()
        assert count_faults(err) == faults
        return err

    return run


@pytest.fixture
def run_folder(simulated: SimulatedTask, results: Path) -> Path:
    return simulated.run_folder(results)


def test_the_unbroken_run_predicts(run_folder: Path, run_main: Callable, tmp_path: Path) -> None:
    output = tmp_path / "predictions.csv"
    code, _, err = run_main(["--checkpoint", str(run_folder / "s_0_checkpoint.pt"), "--output", str(output)], "predict")
    assert (code, err) == (0, "")
    assert len(pd.read_csv(output)) == 28


@pytest.mark.parametrize(
    ("options", "trained_with"),
    [
        ("--variant released", "'paper'"),
        ("--num-context-tokens 8", "16"),
        ("--hier_direction up", "'both'"),
        ("--class_specific_token", "False"),
        ("--feature_extractor plip", "'tinyclip'"),
        ("--low_mag 10x", "5"),
    ],
)
def test_predicting_with_other_settings(
    predict_refused: Refused, run_folder: Path, options: str, trained_with: str
) -> None:
    message = predict_refused(*options.split())
    assert options.split()[0].replace("-", "_").replace("__", "--", 1) in message
    assert f"the checkpoint was trained with {trained_with} ({run_folder / 'config.json'})" in message


def test_all_settings_that_differ_are_listed(predict_refused: Refused) -> None:
    message = predict_refused("--top_k_low", "7", "--tgdf", "none", faults=2)
    assert "--top_k_low 7: the checkpoint was trained with 2 (" in message
    assert "--tgdf none: the checkpoint was trained with 'full' (" in message


def test_predicting_with_another_clip(task: SimulatedTask, predict_refused: Refused) -> None:
    other_clip(task)
    message = predict_refused("--vlm_path", str(task.root / "tinyclip"))
    assert (
        f"--vlm_path {task.root / 'tinyclip'}: not the vision-language model that the checkpoint was trained" in message
    )


def test_predicting_with_other_descriptions(task: SimulatedTask, predict_refused: Refused) -> None:
    file = task.root / "simulated.json"
    change_text(file, "pale", "dark")
    assert f"--text_prompt {file}: not what the checkpoint was trained with" in predict_refused(
        "--text_prompt", str(file)
    )


def test_predicting_slides_of_an_unknown_class(task: SimulatedTask, predict_refused: Refused) -> None:
    file = task.root / "simulated.csv"
    change_text(file, "SIMULATED_B", "SIMULATED_C")
    message = predict_refused("--dataset_csv", str(file))
    assert f"{file}: unknown class 'SIMULATED_C'; expected one of ['SIMULATED_A', 'SIMULATED_B']" in message


def test_predicting_a_slide_without_features(task: SimulatedTask, predict_refused: Refused) -> None:
    file = task.features / LOW / f"{SLIDE}.h5"
    file.unlink()
    message = predict_refused("--data_root_dir", str(task.root / "features"))
    assert f"{file}: file not found" in message
    assert "python extract_features.py" in message


def test_other_descriptions_hide_no_missing_features(task: SimulatedTask, predict_refused: Refused) -> None:
    prompts, file = task.root / "simulated.json", task.features / LOW / f"{SLIDE}.h5"
    change_text(prompts, "pale", "dark")
    file.unlink()
    options = ("--text_prompt", str(prompts), "--data_root_dir", str(task.root / "features"))
    message = predict_refused(*options, faults=2)
    assert f"--text_prompt {prompts}: " in message
    assert f"{file}: file not found" in message


def test_no_checkpoint(predict_refused: Refused, run_folder: Path) -> None:
    (run_folder / "s_0_checkpoint.pt").unlink()
    assert f"{run_folder / 's_0_checkpoint.pt'}: no such checkpoint" in predict_refused()


def test_no_checkpoint_given(run_main: Callable) -> None:
    code, _, err = run_main(["--task", "simulated"], "predict")
    assert code == 2
    assert "required: --checkpoint" in err


def misshapen(state: dict) -> dict:
    name = next(name for name in state if name.endswith("context_tokens"))
    return {**state, name: state[name][:-1]}


UNREADABLE_CHECKPOINTS = {
    "text": lambda file: file.write_text("not a checkpoint"),
    "pointer": lambda file: file.write_bytes(LFS_POINTER),
    "no_bytes": lambda file: file.write_bytes(b""),
    "cut_off": cut,
}


@pytest.mark.parametrize("case", UNREADABLE_CHECKPOINTS)
def test_a_checkpoint_that_cannot_be_read(predict_refused: Refused, run_folder: Path, case: str) -> None:
    file = run_folder / "s_0_checkpoint.pt"
    UNREADABLE_CHECKPOINTS[case](file)
    message = predict_refused()
    assert message.startswith(f"error: {file}: ")
    assert "does not fit --variant" not in message  # no other option would help
    assert "weights_only" not in message  # PyTorch's advice to trust the file is none to pass on


CHECKPOINT_FAULTS = {
    "list": (lambda state: list(state.values()), ("found a list",)),
    "one_tensor": (lambda state: next(iter(state.values())), ("found a Tensor",)),
    "model_inside": (lambda state: {"model": state, "epoch": 3}, ("2 tensors are unknown (epoch, model)",)),
    "prefixed": (lambda state: {f"module.{name}": x for name, x in state.items()}, ("are missing", "(module.")),
    "tensor_missing": (lambda state: dict(list(state.items())[1:]), ("1 tensors are missing (",)),
    "tensor_unknown": (lambda state: {**state, "surplus": torch.ones(1)}, ("1 tensors are unknown (surplus)",)),
    "another_shape": (misshapen, ("1 tensors have another shape", "(15, 16), expected (16, 16)")),
}


@pytest.mark.parametrize("case", CHECKPOINT_FAULTS)
def test_a_checkpoint_that_does_not_fit(predict_refused: Refused, run_folder: Path, case: str) -> None:
    file = run_folder / "s_0_checkpoint.pt"
    new, expected = CHECKPOINT_FAULTS[case]
    torch.save(new(torch.load(file, weights_only=True)), file)
    message = predict_refused()
    assert message.startswith(f"error: {file}: ")
    assert all(part in message for part in expected), message


RECORD_FAULTS = {
    "cut_off": cut,
    "of_something_else": lambda file: file.write_text('{"model_type": "clip"}'),
    "list": lambda file: file.write_text("[]"),
    "unknown_option": lambda file: change_json(
        file, lambda record: {**record, "options": {**record["options"], "from_tomorrow": 1}}
    ),
    "no_inputs": lambda file: change_json(file, lambda record: {"options": record["options"]}),
}


@pytest.mark.parametrize("case", RECORD_FAULTS)
def test_a_faulty_record_beside_the_checkpoint(predict_refused: Refused, run_folder: Path, case: str) -> None:
    RECORD_FAULTS[case](run_folder / "config.json")
    assert str(run_folder / "config.json") in predict_refused()


def test_a_record_that_lacks_an_option_given(predict_refused: Refused, run_folder: Path) -> None:
    def older(record: dict) -> dict:
        del record["options"]["tgdf"]
        return record

    change_json(run_folder / "config.json", older)
    assert "--tgdf none" in predict_refused("--tgdf", "none")


def test_a_bare_checkpoint_needs_its_task(predict_refused: Refused, run_folder: Path) -> None:
    (run_folder / "config.json").unlink()
    assert "--task and --data_root_dir missing" in predict_refused()
    assert "--data_root_dir missing" in predict_refused("--task", "simulated")


def test_a_bare_checkpoint_of_the_other_variant(
    simulated: SimulatedTask, predict_refused: Refused, run_folder: Path, tmp_path: Path
) -> None:
    (run_folder / "config.json").unlink()
    message = predict_refused(*simulated.options(tmp_path, "--variant", "released"))
    assert f"{run_folder / 's_0_checkpoint.pt'}: does not fit --variant released" in message
    assert "tensors are missing" in message


@pytest.mark.parametrize("text", ["3", "[1, null]", "{"])
def test_a_bare_checkpoint_with_faulty_descriptions(
    task: SimulatedTask, predict_refused: Refused, run_folder: Path, tmp_path: Path, text: str
) -> None:
    (run_folder / "config.json").unlink()
    (task.root / "simulated.json").write_text(text)
    assert f"{task.root / 'simulated.json'}: " in predict_refused(*task.options(tmp_path))


def test_predictions_cannot_replace_a_folder(run_folder: Path, run_main: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    code, _, err = run_main(["--checkpoint", str(run_folder / "s_0_checkpoint.pt"), "--output", str(folder)], "predict")
    assert code == 2
    assert str(folder) in err
    assert list(tmp_path.glob(".mine*")) == []
