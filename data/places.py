"""Where files of images are looked for: the folder that the caller names, then ``$PYZOO_DATA``, then a cache folder.

The cache folder is ``$XDG_CACHE_HOME/pyzoo``, by default ``~/.cache/pyzoo``; torchvision downloads into it. Files are laid out as
torchvision lays them out. torchvision is imported only when it downloads or reads files.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyzoo.errors import UsageError, one_line
from pyzoo.files import expanded, read_bytes

__all__ = ["cache", "check_folder", "downloading", "find_file", "folders", "import_torchvision", "read_whole"]


def folders(folder: str | Path | None) -> Iterator[Path]:
    """The folders to look in, in this order; the cache is the last."""
    if folder is not None:
        yield expanded(folder)
    if os.environ.get("PYZOO_DATA"):
        yield expanded(os.environ["PYZOO_DATA"])
    yield cache()


def cache() -> Path:
    """The folder that torchvision downloads into."""
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "pyzoo"


def check_folder(folder: str | Path | None) -> None:
    """Raises a UsageError if the caller names a folder that does not exist."""
    if folder is not None and not expanded(folder).is_dir():
        raise UsageError(f"--data-dir {folder}: there is no such folder")


def find_file(where: Path, folder: str | Path | None) -> Path:
    """The first path at which a file or folder exists, or else its path in the cache."""
    paths = [place / where for place in folders(folder)]
    return next((path for path in paths if path.exists()), paths[-1])


def read_whole(path: Path, md5: str) -> bytes:
    """The content of a file whose MD5 sum is that of the official file.

    Raises:
        UsageError: The file has another sum, or is none.
    """
    content = read_bytes(path)
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        raise UsageError(f"{path} is damaged: its MD5 sum is not that of the official file; remove it, or replace it")
    return content


@contextlib.contextmanager
def downloading(
    name: str,
    where: Path | None,
    folder: str | Path | None,
    instead: str = "train on digits, which need none (--data digits)",
) -> Iterator[Any]:
    """Gives torchvision for a download, and turns every failure into one line.

    Args:
        name: the set of images, as its authors spell it.
        where: the missing file or folder, relative to those that were looked in; None if torchvision looked for it.
        folder: the folder that the caller names.
        instead: what the user can do without the file.

    Raises:
        UsageError: torchvision cannot be imported, or the download failed.
    """
    places = ", ".join(str(place) for place in folders(folder))
    looked = f"torchvision looked in {places}" if where is None else f"looked for {where} in {places}"
    try:
        yield import_torchvision()
    except Exception as error:  # torchvision raises many kinds
        raise UsageError(
            f"{name} was not found ({looked}) and could not be downloaded ({one_line(error)}). "
            f"Copy it to one of these folders, name another one with --data-dir, or {instead}."
        ) from error


def import_torchvision() -> Any:
    """The module.

    Raises:
        UsageError: It cannot be imported, for example because it does not fit the installed torch.
    """
    try:
        import torchvision
    except (ImportError, RuntimeError) as error:
        raise UsageError(f"torchvision cannot be imported: {one_line(error)}") from error
    return torchvision
