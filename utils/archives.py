"""Archives, unpacked safely."""

import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from utils.errors import Fault, UserError

CHUNK = 2**20
DAMAGES = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError,
    RuntimeError,  # encrypted, or compressed in a way that is not known
)  # fmt: skip


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive, plain or compressed, told by its content, into a folder.

    Raises UserError for another file, a damaged archive (as its own checksums tell; a plain tar has none of the files'
    contents), and one that holds links, devices or names that lead out of the folder.
    """
    try:
        for name, content in _files(archive):
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                found = f"holds {name!r}, which leads out of {folder}"
                raise UserError(Fault("archive.unsafe", str(archive), found, mend="do not trust this archive"))
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as output:
                shutil.copyfileobj(content, output, CHUNK)
    except (*DAMAGES, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the system: no space, no permission
            raise
        raise UserError(
            Fault("archive.unreadable", str(archive), f"damaged ({error})", mend="delete it and fetch it again")
        ) from error


def _files(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Names and contents of the files of an archive, to be read in turn."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for entry in zipped.infolist():
                if not entry.is_dir():
                    with zipped.open(entry) as content:
                        yield entry.filename, content
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isreg() and (stored := tar.extractfile(member)):
                    yield member.name, stored
                elif not member.isdir():
                    found = f"holds {member.name!r}, a link or device"
                    raise UserError(Fault("archive.link", str(archive), found, expected="files alone"))
            while tar.fileobj and tar.fileobj.read(CHUNK):  # to the checksum behind the last file
                pass
    else:
        found = "neither a zip nor a tar archive, or cut off"
        raise UserError(Fault("archive.unknown_form", str(archive), found, expected="one of them"))
