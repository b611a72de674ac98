"""Folders of made-up files, and archives of them."""

import shutil
from collections.abc import Mapping
from pathlib import Path


def write_files(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def archive_of(folder: Path, form: str, to: Path) -> Path:
    """Packed by the standard library, named without an extension that would tell the form."""
    packed = Path(shutil.make_archive(str(to.with_name("packed")), form, folder))
    return packed.replace(to)
