"""Where a task's feature files lie."""

from argparse import Namespace
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets.feature_layouts import FeatureSource, find_source
from datasets.slide_names import file_of, slide_name
from utils.commands import command, options_text
from utils.config import Config
from utils.errors import Fault, UserError
from utils.files import files_below
from utils.interface import BagForm


@dataclass(frozen=True)
class FeatureFolders:
    """DATA_ROOT/<task>_<fe>/ with <fe>_5x/, <fe>_20x/ and hierarchical_<fe>_5x_20x/ (magnifications as given).

    features_from: a job of TRIDENT whose low and high files are read in their place, and linked whenever they are read.
    """

    data_root: Path
    task: str
    feature_extractor: str
    low_magnification: int = 5
    high_magnification: int = 20
    features_from: Path | None = None

    @classmethod
    def of(cls, options: Config | Namespace) -> "FeatureFolders":
        """The folders that the options of a run, or of a script that takes the same ones, name."""
        root = Path(options.data_root_dir or "DATA")  # a word for commands, where features are read in their place
        job = getattr(options, "features_from", None)
        names = options.task, options.feature_extractor, options.low_mag, options.high_mag
        return cls(root, *names, Path(job) if job else None)

    @property
    def root(self) -> Path:
        return self.data_root / f"{self.task}_{self.feature_extractor}"

    @property
    def place(self) -> Path:
        """The folder that holds what is read."""
        return self.features_from or self.root

    def low_file(self, slide_id: str) -> Path:
        return self._file(self.low_magnification, slide_id)

    def high_file(self, slide_id: str) -> Path:
        return self._file(self.high_magnification, slide_id)

    def _file(self, magnification: int, slide_id: str) -> Path:
        if self.features_from is None:
            return file_of(self._single(magnification), slide_id)
        folder, files = self._in_place[magnification]
        return files.get(slide_id, folder / f"{slide_id}.h5")

    def source_in_place(self, magnification: int) -> FeatureSource:
        """The features of one magnification in ``features_from``. Raises UserError where there are none."""
        return find_source(self, magnification, "trident", self.features_from, "--features-from")

    @cached_property
    def _in_place(self) -> Mapping[int, tuple[Path, Mapping[str, Path]]]:
        """{magnification: the folder, and the files by slide_id} of what is read in its place."""
        found: dict[int, tuple[Path, Mapping[str, Path]]] = {}
        for magnification in (self.low_magnification, self.high_magnification):
            found[magnification] = self.place, {}
            with suppress(UserError):
                source = self.source_in_place(magnification)
                found[magnification] = source.folder, source.files()
        return found

    def hierarchical_file(self, slide_id: str) -> Path:
        name = f"hierarchical_{self.feature_extractor}_{self.low_magnification}x_{self.high_magnification}x"
        return file_of(self.root / name, slide_id)

    def has_flat_patches(self) -> bool:
        """Whether there are bags of all high patches; if not, the children in the hierarchical files stand for them."""
        return self.features_from is not None or self._single(self.high_magnification).is_dir()

    def files(self, slide_id: str, form: BagForm) -> list[Path]:
        """The files that hold a slide in the given form: of a slide with parents that of the parents first."""
        low, linked = self.low_file(slide_id), self.hierarchical_file(slide_id)
        if self.features_from:
            linked = self.high_file(slide_id)
        if form == "hierarchy":
            return [low, linked]
        patches = self.high_file(slide_id) if self.has_flat_patches() else linked
        return [low, patches] if form == "both" else [patches]

    def slide_ids(self, form: BagForm) -> list[str]:
        """The slides that have features in the given form, sorted. Raises UserError where there is none."""
        if self.features_from:
            low, high = (self.source_in_place(m).files() for m in (self.low_magnification, self.high_magnification))
            return sorted(high if form == "patches" else low.keys() & high.keys())
        folder = self.files("slide", form)[-1].parent
        found = sorted({slide_name(file.name) for file in folder.glob("*.h5")})
        if not found:
            mend = f"make them with: {self.extract_command()}"
            raise UserError(Fault("features.missing", str(folder), "no features (*.h5)", mend=mend))
        return found

    def all_files(self) -> list[Path]:
        """All files of features that are there."""
        if self.features_from:
            return [file for _, files in self._in_place.values() for file in files.values()]
        return files_below(self.root) if self.root.is_dir() else []

    def _single(self, magnification: int) -> Path:
        return self.root / f"{self.feature_extractor}_{magnification}x"

    def extract_command(self) -> str:
        """The command that makes the features from slides."""
        return command("extract_features.py", **{"wsi-dir": "SLIDES"}, **self._options())

    def hierarchy_command(self) -> str:
        """The command that links existing features of both magnifications."""
        return command("create_hierarchical_features.py", **self._options(), **self._dirs())

    def check_command(self) -> str:
        """The command that checks linked features."""
        return command("check_hierarchical_consistency.py", **self._options())

    def projection_command(self, model: str) -> str:
        """The command that projects linked features, or links those that are read in their place and projects them.
        model: the file, folder or hub id of the model they are of."""
        if self.features_from:
            return " ".join([self.hierarchy_command(), options_text({"project-with": model})])
        return " ".join([self.check_command(), options_text({"fix": True, "project-with": model})])

    def _dirs(self) -> dict[str, Any]:
        return {"low-dir": self.features_from, "high-dir": self.features_from}

    def _options(self) -> dict[str, Any]:
        low, high = self.low_magnification, self.high_magnification
        return {
            "data_root_dir": self.data_root,
            "task": self.task,
            "feature_extractor": self.feature_extractor,
            "low_mag": low if low != Config.low_mag else None,
            "high_mag": high if high != Config.high_mag else None,
        }
