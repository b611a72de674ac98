"""Shares of lines that the tests run, for each package, from coverage's JSON report: make coverage

    python -m tests.campaign.coverage .coverage.json --missing datasets

The exit code is 1 where a package of ``LEAST`` has less than its share.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LEAST = {"models": 92, "training": 92, "datasets": 92, "utils": 92}
"""Percent of the lines."""


def shares(files: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Percent of the lines that were run, by package. files: of the report."""
    run: dict[str, int] = {}
    lines: dict[str, int] = {}
    for name, told in files.items():
        package = name.partition("/")[0]
        run[package] = run.get(package, 0) + told["summary"]["covered_lines"]
        lines[package] = lines.get(package, 0) + told["summary"]["num_statements"]
    return {package: 100 * run[package] / max(1, lines[package]) for package in sorted(lines)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("--missing", nargs="+", default=[], metavar="PACKAGE", help="show the lines that were not run")
    options = parser.parse_args(argv)
    files = json.loads(options.report.read_text(encoding="utf-8"))["files"]
    found = shares(files)
    print("\n".join(f"{package:12} {share:6.2f} %" for package, share in found.items()))
    for name, told in files.items():
        if name.partition("/")[0] in options.missing and told["missing_lines"]:
            print(f"{name}: {', '.join(map(str, told['missing_lines']))}")
    low = {package: least for package, least in LEAST.items() if found.get(package, 0) < least}
    for package, least in low.items():
        print(f"{package}: {found.get(package, 0):.2f} % of the lines, expected {least} %", file=sys.stderr)
    return int(bool(low))


if __name__ == "__main__":
    sys.exit(main())
