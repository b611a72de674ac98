"""What a script is to write, checked before it starts: that nothing which it reads is replaced."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from utils.errors import Fault, UserError
from utils.whole_files import require_regular


def check_outputs(option: str, outputs: Iterable[Path], inputs: Iterable[Path | None]) -> None:
    """Raises UserError where an output is something else than a file, is one of the inputs, or lies in a folder of
    inputs and is there already.

    option: which names the outputs, with its value. inputs: files, and folders all of whose files are read; those that
    are not there, and None, are passed over.
    """
    faults = []
    there = [path for path in inputs if path is not None and path.exists()]
    files = {_identity(path): path for path in there}
    folders = {path.resolve(): path for path in there if path.is_dir()}
    for output in sorted({path for path in outputs if path.exists()}):
        try:
            require_regular(output)
        except UserError as error:
            faults += [replace(fault, where=option) for fault in error.faults]
            continue
        same = files.get(_identity(output))
        within = next((folder for real, folder in folders.items() if output.resolve().is_relative_to(real)), None)
        if read := same or within:
            found = f"would replace {output}, which is read" + ("" if read == output else f" as {read}" if same else "")
            faults.append(Fault("output.is_input", option, found, mend="name another place"))
    if faults:
        raise UserError(faults)


def check_output_folder(option: str, folder: Path) -> None:
    """Raises UserError where there is something else than a folder."""
    if folder.exists() and not folder.is_dir():
        raise UserError(Fault("output.file", f"{option} {folder}", "is a file", "a folder"))


def _identity(path: Path) -> tuple[int, int]:
    """The same for all names of a file."""
    status = path.stat()
    return status.st_dev, status.st_ino
