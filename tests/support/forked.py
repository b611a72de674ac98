"""Scripts as processes that a test can kill. They are forked from the tests' process, which has imported what scripts
import: to import it anew takes longer than the work."""

import importlib
import os
import sys
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from utils.errors import run_script


def start_script(script: str, argv: Sequence[str], said: Path) -> BaseProcess:
    """Start a script's main, which runs on one thread; said: a file for standard output and error."""
    process = get_context("fork").Process(target=_be_the_script, args=(script, argv, said))
    process.start()
    return process


def _be_the_script(script: str, argv: Sequence[str], said: Path) -> None:
    handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1), os.dup2(handle, 2)
    sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1)  # pytest's are others
    torch.set_num_threads(1)
    sys.exit(run_script(importlib.import_module(script).main, argv))
