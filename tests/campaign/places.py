"""The folder that a scenario works in: laid anew for every trial, at one path, and compared with what it should be."""

import json
import shutil
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import psutil
import torch
from PIL import Image

from tests.campaign.scenarios import Scenario
from tests.campaign.world import World

GRACE_SECONDS = 5.0  # for workers to follow their parent

Files = dict[str, bytes]


@dataclass(frozen=True)
class Finding:
    """What should not have happened, and how to see it again."""

    kind: str
    scenario: str
    how: str
    problem: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.scenario}, {self.how}: {self.problem}"


class Place:
    """The working directory of a scenario's calls."""

    def __init__(self, world: World, scenario: Scenario, base: Path):
        self.world, self.scenario = world, scenario
        self.path = base / "".join(letter if letter.isalnum() else "_" for letter in scenario.name) / "place"

    def lay(self) -> None:
        """The scenario's inputs, and nothing else."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir(parents=True)
        for name in self.scenario.inputs:
            shutil.copytree(self.world.root / name, self.path / name)

    def files(self) -> Files:
        """All files by their names; of those that vary only the names."""
        return {
            name: b"" if any(Path(name).match(pattern) for pattern in self.scenario.varies) else file.read_bytes()
            for name, file in self._walk()
        }

    def differences(self, expected: Files) -> str:
        """In which files the place is not as expected; "" where it is."""
        found = self.files()
        parts = {
            "missing": sorted(expected.keys() - found.keys()),
            "left behind": sorted(found.keys() - expected.keys()),
            "other": sorted(name for name in expected.keys() & found.keys() if expected[name] != found[name]),
        }
        return "; ".join(f"{kind}: {', '.join(names[:4])}" for kind, names in parts.items() if names)

    def half_written(self, expected: Files) -> str:
        """Files under their final names that cannot be read; "" where all can."""
        wrong = []
        for name, file in self._walk():
            hidden = any(part.startswith(".") for part in Path(name).parts)
            if hidden or file.read_bytes() == expected.get(name):
                continue
            try:
                _read(file)
            except Exception as error:
                wrong.append(f"{name} ({type(error).__name__})")
        return f"half-written: {', '.join(wrong)}" if wrong else ""

    def finished(self, expected: Files) -> dict[str, tuple[int, int]]:
        """Those files that a second call does not write again: their inodes and times."""
        return {
            name: (file.stat().st_ino, file.stat().st_mtime_ns)
            for name, file in self._walk()
            if any(Path(name).match(pattern) for pattern in self.scenario.kept)
            and not name.startswith(self.scenario.inputs)
            and file.read_bytes() == expected.get(name)
        }

    def orphans(self) -> str:
        """Processes that work here though the call has ended; they are ended, once they had time to end by themselves.
        "" where there were none."""
        deadline = time.monotonic() + GRACE_SECONDS
        while (left := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for process in left:
            process.kill()
        return f"{len(left)} orphans" if left else ""

    def _processes(self) -> list[psutil.Process]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                here = (folder / "cwd").readlink()
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if here == self.path and state != "Z":
                found.append(psutil.Process(int(folder.name)))
        return found

    def _walk(self) -> Iterator[tuple[str, Path]]:
        for file in sorted(self.path.rglob("*")):
            if file.is_file() and ".cache" not in file.parts:
                yield str(file.relative_to(self.path)), file


def _read(file: Path) -> None:
    """Raises an exception where a file is not whole."""
    match file.suffix:
        case ".json":
            json.loads(file.read_text(encoding="utf-8"))
        case ".jsonl":
            for line in file.read_text(encoding="utf-8").splitlines():
                json.loads(line)
        case ".h5":
            with h5py.File(file) as opened:
                opened.visititems(lambda _, item: item[()] if isinstance(item, h5py.Dataset) else None)
        case ".pt" | ".bin":
            with zipfile.ZipFile(file) as archive:
                assert archive.testzip() is None
            torch.load(file, weights_only=True)
        case ".png" | ".jpg":
            Image.open(file).load()
        case ".html":
            assert file.read_text(encoding="utf-8").rstrip().endswith("</html>")
        case ".csv" | ".md" | ".txt":
            assert file.read_text(encoding="utf-8").endswith("\n")
