"""The layouts of feature files that this project reads: one class for each tool that writes them.

A layout knows where its tool puts the features of one magnification, how one of its files is read, and how the file
tells the size of its patches. To add a tool, write its class and put it into ``LAYOUTS``. PyTorch, NumPy and h5py are
imported where a file is read, so that scripts offer the names of the layouts without them.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from datasets.slide_names import slide_name
from utils.errors import Fault, UserError

if TYPE_CHECKING:
    from datasets.folders import FeatureFolders
    from datasets.patches import Patches

PATCHES_SUFFIX = "_patches"
TENSORS = ".pt"
AUTO = "auto"  # whichever layout is found

Number = Callable[[str], float | None]


class FeatureLayout:
    """How a tool lays its feature files down.

    name: as --layout calls it. expected: its files within a task's folder, for messages, with ``{encoder}`` and
    ``{magnification}``.
    """

    name: str
    expected: str

    def find(self, place: Path, encoder: str, magnification: int) -> list[Path]:
        """The folders at or below ``place`` that may hold features of one magnification, whether they are there or
        not. place: a task's folder, or the folder that --low-dir or --high-dir names."""
        raise NotImplementedError

    def refuses(self, folder: Path) -> bool:
        """Whether a folder that ``find`` does not return is this tool's all the same, of another magnification."""
        return False

    def coords_file(self, file: Path) -> Path | None:
        """The tool's own file of coordinates, read beside a file of features, where it is there. Features without
        coordinates of their own (.pt) have them in one."""
        return _coords_beside(file) if file.suffix == TENSORS else None

    def read(self, file: Path, magnification: int, mpp: float | None = None) -> "Patches":
        """One slide's patches. mpp: microns per level-0 pixel, where known. Raises UserError as
        ``datasets.patches.read_patches``."""
        from datasets.patches import read_patches

        return read_patches(file, magnification, self.coords_file(file), mpp)

    def patch_size(self, number: Number) -> float | None:
        """The edge of a patch in level-0 pixels, told by attributes of a kind that this tool alone writes; None where
        they are absent. number: the value of an attribute, by its name."""
        return None


class ClamLayout(FeatureLayout):
    """CLAM: <folder>/h5_files/<slide>.h5, or <folder>/pt_files/<slide>.pt alone; its file of coordinates,
    <folder>/patches/<slide>.h5, tells the sizes."""

    name = "clam"
    expected = "h5_files/*.h5 (CLAM)"
    folders = "h5_files", "pt_files"

    def find(self, place: Path, encoder: str, magnification: int) -> list[Path]:
        places = place, place / f"{encoder}_{magnification}x"
        candidates = [place, *(above / name for above in places for name in self.folders)]
        named = [folder for folder in candidates if folder.name in self.folders]
        # the tensors of pt_files are those of h5_files without their coordinates
        return [folder for folder in named if folder.name == "h5_files" or not _has_files(_h5_files(folder))]

    def coords_file(self, file: Path) -> Path | None:
        return _coords_beside(file)

    def patch_size(self, number: Number) -> float | None:
        """CLAM steps by whole downsamples: 512 pixels of a level at 4.0015 lie 2048 apart."""
        size, downsample = number("patch_size"), number("downsample")
        return size * int(downsample) if size and downsample else None


class TridentLayout(FeatureLayout):
    """TRIDENT: <job>/{mag}x_{size}px_{overlap}px_overlap/features_{encoder}/<slide>.h5, sizes as attributes of
    ``coords``."""

    name = "trident"
    expected = "{magnification}x_*px_*px_overlap/features_{encoder}/*.h5 (TRIDENT)"
    job_folder = re.compile(r"(\d+)x_\d+px_\d+px_overlap")

    def find(self, place: Path, encoder: str, magnification: int) -> list[Path]:
        names = {f"features_{encoder}".lower(), f"features_{encoder}_v1".lower()}
        patterns = "features_*", "*x_*px_*px_overlap/features_*"
        below = [folder for pattern in patterns for folder in place.glob(pattern) if folder.name.lower() in names]
        return [folder for folder in sorted([place, *below]) if self._magnification(folder) == magnification]

    def refuses(self, folder: Path) -> bool:
        return self._magnification(folder) is not None

    def _magnification(self, folder: Path) -> int | None:
        matched = self.job_folder.fullmatch(folder.resolve().parent.name)
        return int(matched[1]) if matched else None

    def patch_size(self, number: Number) -> float | None:
        size, level0, target = (number(name) for name in ("patch_size", "level0_magnification", "target_magnification"))
        return size * level0 / target if size and level0 and target else None


class ReferenceLayout(FeatureLayout):
    """This project, the released code, ViLa-MIL: <folder>/<slide>.h5 with ``features`` and ``coords``. The attribute
    patch_size_level0, which any tool may write, tells the size."""

    name = "reference"
    expected = "{encoder}_{magnification}x/*.h5"

    def find(self, place: Path, encoder: str, magnification: int) -> list[Path]:
        return [place / f"{encoder}_{magnification}x"]


# those of others first: the project's own folders may hold the copies made of them
REFERENCE = ReferenceLayout()
LAYOUTS: Sequence[FeatureLayout] = (ClamLayout(), TridentLayout(), REFERENCE)
LAYOUT_NAMES = (AUTO, *(layout.name for layout in reversed(LAYOUTS)))


@dataclass(frozen=True)
class FeatureSource:
    """Where the features of one magnification lie."""

    layout: FeatureLayout
    folder: Path

    def files(self) -> dict[str, Path]:
        """{slide_id: file}; the suffix ``_patches`` is no part of a slide's name (of two files the one without it).
        Files of coordinates alone (``holds_coordinates``) are left out."""
        names = sorted(file for file in _files(self.folder) if not file.name.startswith("."))
        found = {slide_id_of(file): file for file in names}
        return {**found, **{name: file for file in names if (name := slide_name(file.name)) in found}}


def slide_id_of(file: Path) -> str:
    return slide_name(file.stem.removesuffix(PATCHES_SUFFIX))


def holds_coordinates(file: Path) -> bool:
    """Whether a file is one of TRIDENT's <slide>_patches.h5, which hold coordinates and no features."""
    from utils.h5 import read_shapes

    if not file.stem.endswith(PATCHES_SUFFIX):
        return False
    try:
        shapes = read_shapes(file)
    except UserError:
        return False  # whoever reads its features tells why it is unreadable
    return "coords" in shapes and not {"features", "feats"} & shapes.keys()


def encoders_of_jobs(place: Path) -> list[str]:
    """The encoders whose features TRIDENT wrote at or below a folder, sorted."""
    folders = place.glob("*x_*px_*px_overlap/features_*")
    return sorted({folder.name.removeprefix("features_") for folder in folders if _has_files(folder)})


def find_source(
    folders: "FeatureFolders", magnification: int, layout: str = AUTO, given: Path | None = None, option: str = ""
) -> FeatureSource:
    """The features of one magnification: in the folder ``given`` (by the option named), else in the task's folder
    (<root>/<task>_<fe>, <root>/<task>). Raises UserError where there are none, or several to choose from."""
    encoder = folders.feature_extractor
    places = [given] if given else [folders.root, folders.data_root / folders.task]
    where = " and ".join(map(str, places))
    for one in LAYOUTS:
        if layout not in (AUTO, one.name):
            continue
        candidates = [folder for place in places for folder in one.find(place, encoder, magnification)]
        found = list(dict.fromkeys(folder for folder in candidates if _has_files(folder)))
        if len(found) > 1:
            several = f"several folders hold {magnification}x features: {', '.join(map(str, found))}"
            raise UserError(Fault("features.several_folders", where, several, mend=f"name one with {option}"))
        if found:
            return FeatureSource(one, found[0])
    # a folder of files that was named is taken as it is, unless it is a tool's of another magnification
    is_another = any(one.refuses(given) for one in LAYOUTS) if given else True
    if given and not is_another and layout in (AUTO, REFERENCE.name) and _has_files(given):
        return FeatureSource(REFERENCE, given)
    expected = [one.expected.format(encoder=encoder, magnification=magnification) for one in reversed(LAYOUTS)]
    raise UserError(
        Fault(
            "features.missing",
            where,
            f"no {magnification}x features of {encoder} ({layout} layout)",
            expected=f"{', '.join(expected[:-1])} or {expected[-1]}",
            mend=f"name their folder with {option}, or make them: {folders.extract_command()}",
        )
    )


def _has_files(folder: Path) -> bool:
    return bool(_files(folder))


def _files(folder: Path) -> list[Path]:
    """Files of features: HDF5 or, where there is none, PyTorch's."""
    return [file for file in folder.glob("*.h5") if not holds_coordinates(file)] or [*folder.glob(f"*{TENSORS}")]


def _h5_files(folder: Path) -> Path:
    return folder.with_name("h5_files")


def _coords_beside(file: Path) -> Path | None:
    """A slide's file of coordinates, in patches/ beside the folder of a file of features or one folder up."""
    names = f"{slide_id_of(file)}.h5", f"{slide_id_of(file)}{PATCHES_SUFFIX}.h5"
    candidates = (above / "patches" / name for above in file.parent.parents[:2] for name in names)
    return next(filter(Path.is_file, candidates), None)
