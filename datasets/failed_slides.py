"""What keeps slides from extraction, told at once, and in a file where there is much of it."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import pandas as pd

from datasets.slide_search import gathered
from utils.errors import MOST_SHOWN, Fault, UserError
from utils.files import write_text
from utils.spreadsheets import csv_text

FILE = "failed_slides.csv"
MUCH_INK = 0.01  # of a slide's area


def refuse(failed: Mapping[str, UserError], wsi_dir: Path, number: int, folder: Path) -> NoReturn:
    """Raise a UserError of all that keeps slides from extraction. number: of all slides. folder: where a file lists
    them, where they are many."""
    single = {slide_id: error.faults[0] for slide_id, error in failed.items() if len(error.faults) == 1}
    several = [fault for slide_id, error in failed.items() if slide_id not in single for fault in error.faults]
    print("--skip-errors goes on with the other slides", file=sys.stderr)
    write_failures(failed, folder)
    raise UserError(list(dict.fromkeys([*gathered(single, wsi_dir, number), *several])))


def write_failures(failed: Mapping[str, UserError], folder: Path) -> None:
    """Write a table of slides and what is wrong with each, where a message would not show them all."""
    if len(failed) > MOST_SHOWN:
        rows = [(slide_id, fault.code, str(fault)) for slide_id, error in failed.items() for fault in error.faults]
        write_text(folder / FILE, csv_text(pd.DataFrame(rows, columns=["slide_id", "code", "fault"]), index=False))
        print(f"all {len(failed)} slides: {folder / FILE}", file=sys.stderr)


def many_inks(shares: Mapping[str, float]) -> list[Fault]:
    """A note on slides with much ink. shares: {slide_id: of its area}."""
    inked = [f"{slide_id} ({share:.1%})" for slide_id, share in shares.items() if share >= MUCH_INK]
    if not inked:
        return []
    found = f"{len(inked)} slides have pen or ink, which is left out (orange in their thumbnails)"
    mend = "where a stain itself is blue, green or black, give masks: --tissue-mask DIR"
    return [Fault("slide.ink", ", ".join(inked), found, mend=mend)]
