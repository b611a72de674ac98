"""Archives, unpacked safely."""

import errno
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, NoReturn

from utils.errors import Fault, UserError

CHUNK = 2**20
LONGEST_NAME = 255  # bytes of one part
LARGEST_HEADER = 2**20  # bytes of a tar's long names and other additions, which tarfile reads into memory
MOST_TIMES, MOST_BESIDE = 200, 10**8  # bytes unpacked: as many times the archive's size, and these
FETCH_AGAIN = "delete it and fetch it again"
ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")
DAMAGES = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, ValueError, OverflowError, IndexError,
    struct.error, MemoryError,
    RuntimeError,  # encrypted, or compressed in a way that is not known
)  # fmt: skip
HEADERS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """What an archive holds under a name. size: bytes, as declared. content: of a file, None of a folder."""

    name: str
    size: int
    content: IO[bytes] | None


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive, plain or compressed, told by its first bytes, into a folder.

    Raises UserError for another file, a damaged archive (as its own checksums tell; a plain tar has none of the files'
    contents), and one that holds links or devices, names that lead out of the folder or that no file may have, a name
    twice, or more than the disk can take.
    """
    files: set[PurePosixPath] = set()
    unpacked = 0
    try:
        for member in _members(archive):
            place = _checked_place(archive, member.name)
            if place in files or any(parent in files for parent in place.parents):
                _refuse(archive, "archive.repeated", f"holds {member.name!r} twice, or as a file and a folder")
            if member.content is None:
                continue
            files.add(place)
            unpacked += member.size
            _check_size(archive, member, unpacked, folder)
            target = folder / place
            if target.is_dir():
                _refuse(archive, "archive.repeated", f"holds {member.name!r} as a file and a folder")
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as output:
                shutil.copyfileobj(member.content, output, CHUNK)
                written = output.tell()
            if written != member.size:
                raise tarfile.ReadError(f"{written} bytes of {member.name!r}, {member.size} declared")
    except (*DAMAGES, OSError) as error:
        of_the_system = isinstance(error, OSError) and error.errno not in (
            None,
            errno.EINVAL,
        )  # a seek before the start
        if of_the_system:  # no space, no permission
            raise
        raise UserError(Fault("archive.unreadable", str(archive), f"damaged ({error})", mend=FETCH_AGAIN)) from error


def _checked_place(archive: Path, name: str) -> PurePosixPath:
    """The path of a member below the folder. Raises UserError for one that is none."""
    place = PurePosixPath(name)
    if place.is_absolute() or PureWindowsPath(name).anchor or ".." in place.parts:
        _refuse(archive, "archive.unsafe", f"holds {name!r}, which leads out of the folder")
    if not place.parts or "\\" in name or not name.isprintable():
        _refuse(archive, "archive.unsafe", f"holds {name!r}, a name that no file may have")
    if any(len(part.encode()) > LONGEST_NAME for part in place.parts):
        _refuse(archive, "archive.unsafe", f"holds {name[:50]!r}..., a name longer than {LONGEST_NAME} bytes")
    return place


def _check_size(archive: Path, member: Member, unpacked: int, folder: Path) -> None:
    """unpacked: bytes in all, with those that the member declares."""
    if member.size < 0:
        raise tarfile.ReadError(f"{member.name!r} declares {member.size} bytes")
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free, most = shutil.disk_usage(existing).free, MOST_TIMES * archive.stat().st_size + MOST_BESIDE
    if member.size > free or unpacked > most:
        found = f"unpacks to {max(unpacked, member.size):.3g} bytes; {free:.3g} are free"
        _refuse(archive, "archive.size", f"{found}, and it is {archive.stat().st_size:.3g} bytes itself")


def _refuse(archive: Path, code: str, found: str) -> NoReturn:
    raise UserError(Fault(code, str(archive), found, "files alone", "do not trust this archive"))


# ---- the two forms ---------------------------------------------------------------------------------------------------


def _members(archive: Path) -> Iterator[Member]:
    """The members of an archive, whose contents are to be read in turn."""
    with archive.open("rb") as file:
        start = file.read(4)
    if start in ZIP_STARTS and zipfile.is_zipfile(archive):
        yield from _of_zip(archive)
        return
    try:
        tar = tarfile.open(archive, tarinfo=StrictInfo)  # noqa: SIM115  (closed below)
    except tarfile.TarError as error:
        found = "neither a zip nor a tar archive, or cut off"
        raise UserError(Fault("archive.unknown_form", str(archive), found, "one of them", FETCH_AGAIN)) from error
    with tar:
        yield from _of_tar(archive, tar)


def _of_zip(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as zipped:
        for entry in zipped.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                _refuse(archive, "archive.link", f"holds {entry.filename!r}, a link or device")
            if "\0" in entry.orig_filename:
                _refuse(archive, "archive.unsafe", f"holds {entry.orig_filename!r}, a name that no file may have")
            if entry.is_dir():
                yield Member(entry.filename, 0, None)
                continue
            with zipped.open(entry) as content:
                yield Member(entry.filename, entry.file_size, content)


# tarfile's own names, as a method below must call its parameter tarfile
END_OF_TAR: type[Exception] = tarfile.EOFHeaderError  # type: ignore[attr-defined]  # in no stub
HEADER_ERROR, READ_ERROR = tarfile.HeaderError, tarfile.ReadError


class StrictInfo(tarfile.TarInfo):
    """A tar's header that is damaged is an error, where tarfile takes what stands behind the first for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "StrictInfo":
        header = super().frombuf(buf, encoding, errors)
        if header.type in HEADERS and header.size > LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> "StrictInfo":
        try:
            return super().fromtarfile(tarfile)
        except END_OF_TAR:
            raise
        except HEADER_ERROR as error:
            raise READ_ERROR(f"header: {error}") from error


def _of_tar(archive: Path, tar: tarfile.TarFile) -> Iterator[Member]:
    for member in tar:
        if member.isdir():
            if PurePosixPath(member.name).parts:  # not the folder itself
                yield Member(member.name, 0, None)
        elif member.isreg() and not member.issparse() and (stored := tar.extractfile(member)):
            yield Member(member.name, member.size, stored)
        else:
            _refuse(archive, "archive.link", f"holds {member.name!r}, a link, device or sparse file")
    while tar.fileobj and (rest := tar.fileobj.read(CHUNK)):  # to the checksum behind the last file
        if rest.strip(b"\0"):
            raise tarfile.ReadError("something behind its end")
