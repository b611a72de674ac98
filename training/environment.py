"""The checks of the machine that ``doctor.py`` starts with: programs, processors, memory, disk, files."""

import os
import platform
import shutil
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import h5py
import psutil
import torch

from datasets.folders import FeatureFolders
from utils.config import PROJECT, Config
from utils.effects import missing_options
from utils.errors import Fault, Faults, UserError
from utils.memory import cache_bytes, free_memory
from utils.reproducibility import PACKAGES

OLDEST_PYTHON = (3, 11)
GIGABYTE = 1e9
LEAST_FREE = 1e9  # bytes of the disk that a run is written to
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
INSTALL = "pip install -r requirements.txt"


def examine_environment(config: Config, faults: Faults) -> None:
    """Check the machine. config: where features lie and results go, as far as the options tell. faults: gathers the
    checks, what they found and what is wrong."""
    features = [] if missing_options(config) else FeatureFolders.of(config).all_files()
    size = sum(file.stat().st_size for file in features if file.is_file())
    faults.check("Python", _python, faults)
    faults.check("packages", _packages, faults)
    faults.check("torchvision", _torchvision, faults)
    faults.check("CUDA", _cuda, faults)
    faults.check("threads", _threads, faults)
    faults.check("memory", _memory, config, size, faults)
    faults.check("disk", _disk, Path(config.results_dir), faults)
    faults.check("HDF5 locks", _hdf5_locks, features, faults)
    faults.check("Chromium", _chromium, faults)


def _python(faults: Faults) -> None:
    faults.tell(f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}")
    if sys.version_info < OLDEST_PYTHON:
        least = ".".join(map(str, OLDEST_PYTHON))
        raise UserError(
            Fault("python.version", sys.executable, platform.python_version(), f"{least} or newer", "make venv")
        )


def pinned_versions() -> dict[str, str]:
    """{package: version} of requirements.txt; none where the file is not there."""
    file = PROJECT / "requirements.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    pins = [line.partition("#")[0].strip().split("==") for line in lines]
    return {pin[0]: pin[1] for pin in pins if len(pin) == 2}


def _packages(faults: Faults) -> None:
    """Those that numbers depend on, against the pinned versions; another version works, but may give other bytes."""
    missing, other = [], []
    pins = pinned_versions()
    for name in PACKAGES:
        try:
            found = version(name)
        except PackageNotFoundError:
            missing.append(name)
            continue
        faults.tell(f"{name} {found}")
        if pins.get(name, found) != found.partition("+")[0]:
            other.append(f"{name} {found}, pinned {pins[name]}")
    if missing:
        raise UserError(Fault("package.missing", "", f"not installed: {', '.join(missing)}", mend=INSTALL))
    if other:
        faults.warn(
            Fault("package.version", "", f"other versions than the tested ones: {'; '.join(other)}", mend=INSTALL)
        )


def _torchvision(faults: Faults) -> None:
    try:
        import torchvision

        import utils.torchvision_compat as compat
    except (ImportError, OSError, RuntimeError) as error:
        found = f"not importable beside torch {torch.__version__} ({error})"
        raise UserError(Fault("package.unreadable", "torchvision", found, mend=INSTALL)) from error
    stand_in = " (its operators do not fit this torch; none of them is used)" if compat.DECLARED_OPERATORS else ""
    faults.tell(f"{torchvision.__version__}{stand_in}")


def _cuda(faults: Faults) -> None:
    """A machine without a GPU is sound; one whose GPU this PyTorch cannot use is told."""
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        faults.tell(f"cuda:{index} {name}, {free / GIGABYTE:.1f} of {total / GIGABYTE:.1f} GB free")
    if torch.cuda.is_available():
        return
    faults.tell("no CUDA device: models run on the CPU")
    if shutil.which("nvidia-smi") or Path("/dev/nvidia0").exists():
        found = f"this machine has an NVIDIA driver, but torch {torch.__version__} finds no device"
        mend = f"install PyTorch's CUDA build, as a fresh {INSTALL} does on such a machine"
        faults.warn(Fault("device.unused", "", found, mend=mend))


def _threads(faults: Faults) -> None:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    used = torch.get_num_threads()
    faults.tell(f"{used} of PyTorch, {allowed} processors for this process")
    if used > allowed:
        found = f"PyTorch takes {used} threads on {allowed} processors, and slows down"
        faults.warn(Fault("threads.number", "", found, mend=f"export OMP_NUM_THREADS={allowed}"))


def _memory(config: Config, size: int, faults: Faults) -> None:
    """Against the features, which are kept in memory as far as it reaches."""
    free, room = free_memory(), cache_bytes(config.cache_gb)
    faults.tell(f"{free / GIGABYTE:.1f} of {psutil.virtual_memory().total / GIGABYTE:.1f} GB free")
    if size:
        faults.tell(f"features of {size / GIGABYTE:.2f} GB")
    if size > room:
        found = (
            f"features of {size / GIGABYTE:.1f} GB, of which {room / GIGABYTE:.1f} GB are kept: others are read again"
        )
        faults.warn(Fault("memory.small", "", found, mend="give --cache_half, or more memory by --cache_gb"))


def _disk(results: Path, faults: Faults) -> None:
    """Of the file system that results go to."""
    place = next(folder for folder in (results.resolve(), *results.resolve().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    faults.tell(f"{free / GIGABYTE:.1f} GB free for --results_dir {results}")
    if not os.access(place, os.W_OK):
        mend = "name another folder with --results_dir"
        raise UserError(Fault("output.read_only", str(place), "not writable", "a folder to write results to", mend))
    if free < LEAST_FREE:
        found = f"{free / GIGABYTE:.2f} GB free"
        mend = "make room, or name another --results_dir"
        faults.warn(Fault("disk.small", str(place), found, f"{LEAST_FREE / GIGABYTE:g} GB or more", mend))


def _hdf5_locks(features: list[Path], faults: Faults) -> None:
    """Whether files can be opened under HDF5's own locks: a feature file or, without any, a file made for this."""
    faults.tell(
        f"HDF5 {h5py.version.hdf5_version}, HDF5_USE_FILE_LOCKING={os.environ.get('HDF5_USE_FILE_LOCKING', '')}"
    )
    files = [file for file in features if file.suffix == ".h5"][:1]
    with tempfile.TemporaryDirectory() as folder:
        if not files:
            files = [Path(folder, "x.h5")]
            h5py.File(files[0], "w").close()
        (file,) = files
        try:
            h5py.File(file, "r", locking=True).close()
            faults.tell(f"locks work in {file.parent}")
        except OSError as error:
            found = f"files cannot be locked ({error}): this project reads without locks, other programs may fail"
            faults.warn(Fault("h5.locks", str(file.parent), found, mend="export HDF5_USE_FILE_LOCKING=FALSE"))


def _chromium(faults: Faults) -> None:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    faults.tell(found or "not installed: pages open in any browser, tests of pages are skipped")
