"""Files on disk: whole or not at all, and what is known of their bytes."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distill.errors import InputError

__all__ = ["bytes_of", "files_of", "replacing", "replacing_whole", "sha256_of"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to; takes `path`'s place only once the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def files_of(path: Path) -> list[Path]:
    """The file itself, or all files in the folder, in order of their names."""
    return sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]


def bytes_of(path: Path) -> int:
    """The size of a file, or of all files in a folder."""
    return sum(each.stat().st_size for each in files_of(path))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes; of a folder's files, each behind its name in the folder; hexadecimal."""
    digest = hashlib.sha256()
    for each in files_of(path):
        if path.is_dir():
            digest.update(each.relative_to(path).as_posix().encode() + b"\0")
        digest.update(each.read_bytes())
    return digest.hexdigest()


@contextmanager
def replacing_whole(target: Path, *, is_folder: bool = False) -> Iterator[Path]:
    """A place of the target's name to write to; takes the target's place only once the block ends without an error.

    Args:
        target: where to write.
        is_folder: whether what is written is a folder, so that a folder that stands there is one of its kind.

    Raises:
        InputError: the place cannot be written to.
    """
    with _unwritable_reported(target):
        if target.is_dir() and not is_folder:
            raise InputError(f"{target} is a folder that no export made: remove it, or give another place.")
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".export-", dir=target.parent))
    try:
        temporary = folder / target.name
        yield temporary
        with _unwritable_reported(target):
            if target.is_dir() or temporary.is_dir():  # a folder cannot be replaced in one step: put the old one aside
                aside = folder / "before"
                if target.exists():
                    target.replace(aside)
            temporary.replace(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _unwritable_reported(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{target} cannot be written ({reason}): free the place or give another path.") from error
