"""An explained slide as files: its page, its scores as tables, its patches for QuPath."""

import glob
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

from datasets.slides import read_overview, reading
from explanation.explained_slide import ExplainedSlide
from explanation.qupath import feature_collection
from explanation.score_tables import patch_table, removal_table, text_table
from explanation.slide_page import render_explanation
from utils.files import write_text
from utils.spreadsheets import csv_text


def files_of_slide(folder: Path, slide_id: str) -> list[Path]:
    """The files in a folder that the explanation of a slide may replace."""
    return [*folder.glob(f"{glob.escape(slide_id)}_*"), folder / f"{slide_id}.html"]


def write_explanation(
    explained: ExplainedSlide, folder: Path, run_name: str, top: int, slide_file: Path | None = None
) -> list[Path]:
    """Write a slide's tables, its patches for QuPath, and last its page, which links to the others.

    top: patches that the page shows for each class and scale. slide_file: the slide, whose pixels the page then shows.
    Returns the files. Raises UserError where the slide cannot be read.
    """
    if slide_file:
        with reading(slide_file) as slide:
            return write_explanation(replace(explained, read=partial(read_overview, slide)), folder, run_name, top)
    name = explained.slide_id
    contents: dict[str, tuple[str, str]] = {}  # file -> what is in it, text
    for scale in explained.scales:
        at = f"{scale.magnification}x"
        table = csv_text(patch_table(explained, scale), index=False)
        contents[f"{name}_{at}.csv"] = f"scores of all {at} patches", table
        features = json.dumps(feature_collection(explained, scale), allow_nan=False)
        contents[f"{name}_{at}.geojson"] = f"{at} patches for QuPath (drag it onto the open slide)", features
    contents[f"{name}_texts.csv"] = "what each text adds", csv_text(text_table(explained), index=False)
    if explained.removal:
        contents[f"{name}_removal.csv"] = (
            "the removal of patches",
            csv_text(removal_table(explained.removal), index=False),
        )
    page = render_explanation(explained, run_name, top, {file: title for file, (title, _) in contents.items()})
    contents[f"{name}.html"] = "", page
    for file, (_, text) in contents.items():
        write_text(folder / file, text)
    return [folder / file for file in contents]
