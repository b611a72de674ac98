"""The small files that a run reads, looked at before the run starts: table of slides, splits, descriptions."""

from datasets.model_texts import read_texts
from datasets.splits import read_split_ids
from datasets.task import read_slides
from utils.commands import command
from utils.config import Config
from utils.errors import Faults


def check_run_files(config: Config) -> None:
    """Read a run's table of slides, its splits up to the first faulty one, and its descriptions; features and models
    are not looked at.

    Raises UserError with the faults of all of them: each names the file and the command that makes the file.
    """
    faults = Faults()
    make_splits = command("create_splits.py", task=config.task, k=config.k, few_shot_num=config.few_shot_num)
    table = faults.attempt(read_slides, config.csv_path())
    all(faults.attempt(read_split_ids, config.split_path(fold), make_splits) for fold in config.folds())
    faults.attempt(read_texts, config, config.text_form, table.value[0] if table else None)
    faults.raise_any()
