"""A run repeated from its config.json, and what may keep the repetition from giving the same bytes."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from datasets.model_texts import text_source
from training.checkpoints import refuse_other_options
from training.inputs import RunInputs
from training.run_reader import RunReader
from training.run_record import RunRecord, config_of, replaced
from utils.config import Config
from utils.effects import CIRCUMSTANCES, of_nature
from utils.errors import Fault, UserError
from utils.options import Nature

SPLITS = re.compile(r"splits_(\d+)")


def read_repetition(file: Path, given: Mapping[str, Any]) -> tuple[RunRecord, Config]:
    """A run's record, and the options that repeat the run: the recorded ones, with those given in place.

    file: the run's config.json. given: options of the command line; those that say where a run happens and which part
    of it (``CIRCUMSTANCES``) may differ from the record. By default all folds that the record tells of are repeated.
    PyTorch gets the recorded number of threads. Raises UserError where the file cannot be used, and where another
    option given differs from the record.
    """
    if file.name != "config.json":
        expected = "the config.json in the folder of a run"
        raise UserError(Fault("run.foreign", f"--from_config {file}", "a file of another name", expected))
    record = RunReader(file.parent).record()
    refuse_other_options(file, record.options, given, CIRCUMSTANCES)
    recorded = {name: value for name, value in record.options.items() if name not in of_nature(Nature.CALL)}
    folds = [int(match[1]) for name in record.inputs if (match := SPLITS.fullmatch(name))]
    span = {"k_start": min(folds), "k_end": max(folds) + 1} if folds else {}
    if record.num_threads:
        torch.set_num_threads(record.num_threads)
    return record, config_of(replaced({**recorded, **span}, given), file)


def check_repetition(record: RunRecord, inputs: RunInputs) -> None:
    """Note what else than the inputs may change bytes. Raises UserError with a fault for each input that has changed.

    record: the run's. inputs: those of the repetition; one that the record lacks is not compared.
    """
    new = inputs.record()
    inputs.notes.extend(bytes_notes(record, new))
    faults = [
        Fault(
            "run.input_changed", _place(name, inputs.config),
            f"{name} is not what the run read{record.change_told(name, new)}",
            expected="the same contents, as config.json has their fingerprint",
            mend="bring the input back, or train another run without --from_config",
        )
        for name in record.changed_inputs(new)
    ]  # fmt: skip
    if faults:
        raise UserError(faults)


def _place(name: str, config: Config) -> str:
    """Where an input lies, or the option that names it."""
    kind, _, fold = name.rpartition("_")
    if kind == "splits":
        return str(config.split_path(int(fold)))
    if kind == "features":
        return f"--features-from {job}" if (job := config.features_from) else f"--data_root_dir {config.data_root_dir}"
    places = {
        "dataset_csv": str(config.csv_path()),
        "text_prompt": text_source(config, config.text_form) if config.text_form else "",
        **dict.fromkeys(("text_tower", "tokenizer"), f"--vlm_path {config.vlm_path or config.feature_extractor}"),
    }
    return places.get(name, name)


def bytes_notes(there: RunRecord, new: RunRecord) -> list[str]:
    """A note for each circumstance that may change bytes: PyTorch's threads, and the versions of programs."""
    notes = []
    if there.num_threads != new.num_threads:
        trained = "an unrecorded number of" if there.num_threads is None else there.num_threads
        notes.append(
            f"note: the run was trained on {trained} threads, now {new.num_threads}: bytes may differ "
            "(OMP_NUM_THREADS sets the number)"
        )
    changed = [
        f"{name} {version}, now {new.versions.get(name, 'none')}"
        for name, version in there.versions.items()
        if new.versions.get(name) != version
    ]
    if changed:
        notes.append(f"note: the run was trained with {'; '.join(changed)}: bytes may differ")
    return notes
