"""A report in Markdown, with the tables and figures that it names in files beside it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from reports.plots import save_png
from reports.tables import Table, escape_markdown
from utils.files import write_text
from utils.spreadsheets import csv_text


@dataclass
class MarkdownReport:
    """report.md in the making; tables and figures are written as they are added."""

    folder: Path
    parts: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """A paragraph of Markdown."""
        self.parts.append(text)

    def add_list(self, lines: Sequence[str]) -> None:
        """A list of plain texts."""
        if lines:
            self.add("\n".join(f"- {escape_markdown(line)}" for line in lines))

    def add_table(self, name: str, table: Table, numbers: pd.DataFrame) -> None:
        write_text(self.folder / "tables" / f"{name}.csv", csv_text(numbers, index=False))
        write_text(self.folder / "tables" / f"{name}.tex", table.latex())
        self.add(f"{table.markdown()}\n\n([CSV](tables/{name}.csv), [LaTeX](tables/{name}.tex))")

    def add_figure(self, name: str, figure: Figure, what: str) -> None:
        save_png(figure, self.folder / "figures" / f"{name}.png")
        self.add(f"![{escape_markdown(what)}](figures/{name}.png)")

    def write(self) -> Path:
        """Write report.md; returns where it lies."""
        path = self.folder / "report.md"
        write_text(path, "\n\n".join(self.parts))
        return path


def file_name(text: str) -> str:
    """The text with every run of signs that file names and links may not hold made a _."""
    return re.sub(r"[^\w.-]+", "_", text, flags=re.ASCII).strip("_")
