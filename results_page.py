"""Make a page of a run's results: settings, tables, curves, and every slide's prediction; one HTML file a run."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.errors import Faults, UserError, run_script

PAGE = "results.html"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "runs", metavar="RUN_FOLDER", nargs="+", type=Path, help="folder of a run, with its config.json"
    )
    parser.add_argument(
        "--output", type=Path,
        help=f"HTML file to write, or folder for <run>.html of each run (default: {PAGE} in each run's folder)",
    )  # fmt: skip
    parser.add_argument("--explanations", type=Path, help="folder with <slide_id>.html, to link to")
    return parser.parse_args(argv)


def page_paths(runs: Sequence[Path], output: Path | None) -> list[Path]:
    """Where the page of each run goes. Raises UserError where two would be one file."""
    if output is None:
        return [run / PAGE for run in runs]
    if output.suffix.lower() in (".html", ".htm") and not output.is_dir():
        pages = [output] * len(runs)
    elif output.is_file():
        raise UserError(f"--output {output}: is a file; expected a folder, or a name that ends in .html")
    else:
        pages = [output / f"{run.resolve().name}.html" for run in runs]
    faults = Faults()
    for page in sorted(set(pages)):
        same = [run for run, other in zip(runs, pages, strict=True) if other == page]
        if len(same) > 1:
            faults.add(f"{page}: would be the page of {' and of '.join(map(str, same))}; leave --output out")
    faults.raise_any()
    return pages


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    runs = list({run.resolve(): run for run in options.runs}.values())
    pages = page_paths(runs, options.output)
    if options.explanations and not options.explanations.is_dir():
        raise UserError(f"--explanations {options.explanations}: no such folder; explain.py writes one")
    from reports.finished_run import read_finished_run
    from reports.run_page import explanation_addresses, render_results
    from utils.files import write_text

    faults = Faults()
    read = [faults.maybe(read_finished_run, run) for run in runs]
    faults.raise_any()
    for run, page in zip(read, pages, strict=True):
        assert run
        addresses = explanation_addresses(run, options.explanations, page) if options.explanations else {}
        if options.explanations and not addresses:
            print(f"note: {options.explanations} has no page of a slide of {run.name}")
        if run.missing:
            print(f"note: {run.name}: not finished, so not on the page: fold {', '.join(map(str, run.missing))}")
        write_text(page, render_results(run, addresses))
        print(f"page of {run.name}: {page}")


if __name__ == "__main__":
    sys.exit(run_script(main))
