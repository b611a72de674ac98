"""The authors' released files: tables, splits and descriptions by checksum; feature archives and CONCH's weights by id.

released_assets.json holds the path and sha256 of each small file at a commit, and the Google Drive ids. No checksum of
the archives or the weights is published.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from datasets.folders import FeatureFolders
from utils.archives import unpack
from utils.download import download, download_from_drive
from utils.errors import Fault, Faults, UserError
from utils.files import file_sha256
from utils.locks import LockedError, locked
from utils.tensors import read_state

RELEASED = json.loads(Path(__file__).with_name("released_assets.json").read_text(encoding="utf-8"))
GIGABYTE = 10**9
SMALLEST_ARCHIVE = 20 * GIGABYTE  # the authors say 20 to 25
# GitHub's form that takes an abbreviated commit, and leads on to the raw file
BASE_URL = f"{RELEASED['repository']}/raw/{RELEASED['commit']}"
TASKS = tuple(RELEASED["feature_archives"])
EXTRACTORS = tuple(RELEASED["feature_archives"][TASKS[0]])
ALL = "all"


def fetch_files(output_dir: Path, base_url: str = BASE_URL, overwrite: bool = False) -> tuple[int, int]:
    """Fetch the tables, splits and descriptions into ``output_dir``; how many were fetched, and how many were there.

    Raises UserError, before anything is fetched, where other files are there and ``overwrite`` is not set; and where a
    file cannot be had: those before it stay, each whole.
    """
    files: dict[str, str] = RELEASED["files"]
    missing = {}
    faults = []
    for name, sha256 in files.items():
        path = output_dir / name
        if not path.exists() or (overwrite and file_sha256(path) != sha256):
            missing[name] = sha256
        elif file_sha256(path) != sha256:
            mend = "--overwrite replaces it, --output-dir is another place"
            faults.append(Fault("released.other_file", str(path), "is not the authors' file", mend=mend))
    if faults:
        raise UserError(faults)
    mend = "with internet access run the command again; --base-url names another branch, commit or mirror"
    for name, sha256 in missing.items():
        download(f"{base_url.rstrip('/')}/{name}", output_dir / name, sha256, mend)
    return len(missing), len(files) - len(missing)


def archive_path(folders: FeatureFolders) -> Path:
    """Where the archive of some features lies until it is unpacked, beside their folder."""
    return folders.root.with_name(f"{folders.root.name}.archive")


def has_features(folder: Path, folders: FeatureFolders) -> bool:
    """Whether a folder holds the two folders of features that an archive has."""
    return all((folder / name).is_dir() for name in _feature_names(folders))


def is_fetched(folders: FeatureFolders) -> bool:
    """Whether a task's features are there, and nothing that a killed run left while it put them there."""
    return has_features(folders.root, folders) and not _unpacking_path(folders).exists()


def fetch_features(folders: FeatureFolders, keep: bool = False) -> Path:
    """Download what is missing of the archive of a task's features, and unpack it; ``keep`` keeps the archive.

    Returns the folder of features, which appears whole or not at all. Raises UserError where the archive cannot be had,
    needs more than the disk has, or does not hold what is expected, and where another process fetches the same; what
    was downloaded stays for the next call.
    """
    root = folders.root
    try:
        with locked(root.with_name(f".{root.name}.lock")):
            if not has_features(root, folders):
                _fetch_features(folders)
            if _unpacking_path(folders).exists():  # also of a run that was killed here
                if not keep:
                    archive_path(folders).unlink(missing_ok=True)
                shutil.rmtree(_unpacking_path(folders))
            return root
    except LockedError as error:
        found = "another process fetches these features"
        raise UserError(Fault("released.locked", str(root), found, mend=error.remedy)) from error


def _unpacking_path(folders: FeatureFolders) -> Path:
    return folders.root.with_name(f".{folders.root.name}.unpacking")


def _fetch_features(folders: FeatureFolders) -> None:
    """Put the features in place, and leave the archive and the folder where it was unpacked."""
    root, archive, unpacking = folders.root, archive_path(folders), _unpacking_path(folders)
    if root.exists():
        incomplete, remedy = "is there without all of the released features", "move it, or name another data root"
        raise UserError(Fault("released.incomplete", str(root), incomplete, mend=remedy))
    mend = (
        "run the command again, it goes on where this one stopped; or download the file in a browser, put it at "
        f"{archive}, and run the command again"
    )

    def check_space(so_far: int, total: int | None) -> None:
        needed = 2 * total - so_far if total else GIGABYTE  # of a server that does not say how much it will send
        require_space(folders.data_root, needed, f"{archive.name} and what is in it")

    if not archive.exists():
        file_id = RELEASED["feature_archives"][folders.task][folders.feature_extractor]
        download_from_drive(file_id, archive, mend, check_space)
    shutil.rmtree(unpacking, ignore_errors=True)  # of a killed run
    top = unpacking / "archive"
    try:
        unpack(archive, top)
        inside = [top, *sorted(entry for entry in top.rglob("*") if entry.is_dir())]
        found = [folder for folder in inside if has_features(folder, folders)]
        if len(found) != 1:
            names = ", ".join(str(folder.relative_to(top)) for folder in inside[1:6])
            expected = f"one that holds {' and '.join(_feature_names(folders))}"
            raise UserError(
                Fault("released.other_folders", str(archive), f"holds the folders {names or 'none'}", expected)
            )
        found[0].replace(root)
    except BaseException:
        shutil.rmtree(unpacking, ignore_errors=True)
        raise


def fetch_conch_weights(path: Path) -> Path:
    """Download CONCH's weights. Raises UserError as ``fetch_features``, and where the file does not hold tensors."""
    mend = "run the command again; or take pytorch_model.bin from the hub repository MahmoodLab/CONCH"
    temporary = path.with_name(f"{path.name}.download")
    download_from_drive(RELEASED["conch_weights"], temporary, mend, lambda so_far, total: None)
    try:
        read_state(temporary)
        return temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def require_space_for(wanted: list[FeatureFolders], keep: bool) -> None:
    """Raises UserError where the disk is too small even if each archive is as small as the authors say; their sizes are
    known when their downloads start."""
    if not wanted:
        return
    data_root = wanted[0].data_root
    there = sum(file.stat().st_size for folders in wanted for file in data_root.glob(f"{archive_path(folders).name}*"))
    number = 2 * len(wanted) if keep else len(wanted) + 1  # archives are unpacked one after the other
    what = f"{len(wanted)} archives of {SMALLEST_ARCHIVE / GIGABYTE:g} GB and more, and what is in them,"
    require_space(data_root, number * SMALLEST_ARCHIVE - there, what)


def _feature_names(folders: FeatureFolders) -> list[str]:
    return [file.parent.name for file in (folders.low_file(""), folders.hierarchical_file(""))]


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raises UserError where less is free on the disk of ``folder`` than ``needed`` bytes."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        found = f"{what} need {needed / GIGABYTE:.1f} GB more, {free / GIGABYTE:.1f} GB are free"
        raise UserError(Fault("disk.space", str(folder), found, mend="make room, or name a folder on a larger disk"))


# ---- all that was asked for ------------------------------------------------------------------------------------------


def known_pairs(asked: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """The tasks and extractors meant by pairs of names, each pair once; ``all`` means all of them. Raises UserError
    for unknown ones."""
    found: list[tuple[str, str]] = []
    faults = Faults()
    for task, extractor in asked:
        for name, known in ((task, TASKS), (extractor, EXTRACTORS)):
            if name not in (*known, ALL):
                where, expected = f"--features {task} {extractor}", f"{', '.join(known)} or all"
                faults.add(Fault("option.value", where, f"unknown {name!r}", expected))
        found += [(t, e) for t in TASKS if task in (t, ALL) for e in EXTRACTORS if extractor in (e, ALL)]
    faults.raise_any()
    return list(dict.fromkeys(found))


def fetch_tables(output_dir: Path, base_url: str | None = None, overwrite: bool = False) -> None:
    """``fetch_files``; prints what came of it."""
    fetched, there = fetch_files(output_dir, base_url or BASE_URL, overwrite)
    print(f"tables, splits and descriptions: {fetched} fetched, {there} there already")


def fetch_released(
    output_dir: Path,
    base_url: str | None = None,
    overwrite: bool = False,
    features: Sequence[FeatureFolders] = (),
    keep_archive: bool = False,
    conch_weights: bool = False,
    fetch_small: Callable[[Path, str | None, bool], None] = fetch_tables,
) -> None:
    """Fetch tables, splits and descriptions (or what else ``fetch_small`` fetches, which takes the arguments of
    ``fetch_tables``), and on request ``features`` and CONCH's weights; print what is there.

    Raises UserError, at the end, with all that could not be had; what was fetched stays.
    """
    wanted = [folders for folders in features if not is_fetched(folders)]
    require_space_for(wanted, keep_archive)
    faults = Faults()
    faults.attempt(fetch_small, output_dir, base_url, overwrite)
    for folders in features:
        if folders not in wanted:
            print(f"there already: {folders.root}")
            continue
        print(f"fetching {folders.root}", flush=True)
        if faults.attempt(fetch_features, folders, keep_archive):
            print(f"unpacked: {folders.root}")
    if conch_weights:
        path = output_dir / "conch" / "pytorch_model.bin"
        if path.exists():
            print(f"there already: {path}")
        elif faults.attempt(fetch_conch_weights, path):
            print(f"fetched: {path}")
    faults.raise_any()
