"""Files that are written whole or not at all, and never over what pyzoo did not write."""

import contextlib
import hashlib
import io
import os
import shlex
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pyzoo.errors import UsageError
from pyzoo.settings import cut

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

__all__ = [
    "MARK",
    "absolute",
    "expanded",
    "fingerprint_of",
    "read_bytes",
    "remove_leftovers",
    "require_file",
    "require_folder",
    "require_ours",
]
__all__ += ["require_name", "resume_command", "save_arrays", "save_figure", "sync_folder", "write_whole"]

MARK = b"written by pyzoo"
"""What pictures, archives and tables that pyzoo wrote hold near their beginning or at their end."""


DPI = 150
"""Pixels per inch of pictures."""


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file beside its name, syncs it and renames it: whatever happens meanwhile, what was there before stays whole.

    Args:
        path: the file. Its folder exists.
        write: writes into an open file.

    Raises:
        UsageError: the disk is full, or the file can't be written; names it. Nothing is left beside it.
    """
    require_file(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, Exception):
            cause = error if isinstance(error, OSError) else error.__context__  # torch follows a failed write with its own error
            if isinstance(cause, OSError):
                raise UsageError(f"could not write {path}: {cause.strerror or cause}") from error
        raise


def require_name(path: str | Path) -> None:
    """Raises a UsageError if no file can have a name, since it is too long."""
    try:
        Path(path).exists()
    except OSError as error:
        raise UsageError(f"{cut(str(path))}: {error.strerror}") from error


def require_file(path: Path) -> None:
    """Raises a UsageError if there is something at a path that is no file: opening a pipe would wait for ever."""
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is {'a folder' if path.is_dir() else 'a pipe or a device'}, and not a file")


def require_folder(path: Path) -> None:
    """Raises a UsageError if there is something at a path that is no folder, such as a file or a link to nowhere."""
    if os.path.lexists(path) and not path.is_dir():
        raise UsageError(f"{path} is not a folder: move it away")


def fingerprint_of(*arrays: Any) -> str:
    """What tells arrays of numbers, tensors on the CPU or NumPy's, from others: 32 hexadecimal digits.

    Example:
        >>> import torch
        >>> zeros = fingerprint_of(torch.zeros(3))
        >>> zeros == fingerprint_of(torch.zeros(3)), zeros == fingerprint_of(torch.ones(3))
        (True, False)
    """
    import numpy as np

    found = hashlib.blake2b(digest_size=16)
    for array in map(np.ascontiguousarray, arrays):
        found.update(f"{array.dtype}{array.shape}".encode())
        found.update(array.view(np.uint8).data if array.size else b"")
    return found.hexdigest()


def read_bytes(path: Path) -> bytes:
    """What a file holds.

    Raises:
        OSError: it is not there, or can't be read.
        UsageError: it is a folder, a pipe or a device.
    """
    require_file(path)
    return path.read_bytes()


def save_figure(figure: "Figure", path: Path) -> None:
    """Writes a figure as a .png that says who wrote it, not over anyone else's file; errors as :func:`write_whole`."""
    require_ours(path)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI, metadata={"Software": MARK.decode()})
    write_whole(path, lambda file: file.write(content.getbuffer()))


def save_arrays(arrays: "Mapping[str, np.ndarray]", path: Path) -> None:
    """Writes arrays as an .npz that says who wrote it, as :func:`save_figure` does."""
    import numpy as np

    require_ours(path)
    content = io.BytesIO()
    np.savez(content, **arrays)
    with zipfile.ZipFile(content, "a") as archive:
        archive.comment = MARK
    write_whole(path, lambda file: file.write(content.getbuffer()))


def resume_command(path: str | Path) -> str:
    """How to go on with a run, as one types it in a shell; in quotes, unless these would mingle with the path's."""
    command = f"pyzoo resume {shlex.quote(str(path))}"
    return command if "'" in command else f"'{command}'"


def expanded(path: str | Path) -> Path:
    """A path with the home folder for ``~``.

    Raises:
        UsageError: nobody knows the home folder.
    """
    try:
        return Path(path).expanduser()
    except TypeError as error:
        raise ValueError(f"path must be text or a path, got a {type(path).__name__}.") from error
    except RuntimeError as error:
        raise UsageError(f"{path}: there is no such home folder") from error


def absolute(path: str | Path) -> Path:
    """A path from the root, with the home folder for ``~``.

    Raises:
        UsageError: nobody knows the home folder, or the current folder is gone.
    """
    try:
        return expanded(path).absolute()
    except FileNotFoundError as error:
        raise UsageError(f"{path} is in the current folder, which is not there any more") from error


def sync_folder(path: Path) -> None:
    """Makes a rename durable, where the system lets a folder be synced."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Removes what processes that were killed have left of :func:`write_whole`; those that live go on writing."""
    for left in folder.glob(".*.partial"):
        process = left.name.removesuffix(".partial").rpartition(".")[2]
        if process.isdigit() and not _is_alive(int(process)):
            with contextlib.suppress(OSError):
                left.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # someone else's
        return True
    return True


def require_ours(path: Path) -> None:
    """Raises a UsageError if there is something at a path that pyzoo did not write, or that is no file."""
    if not os.path.lexists(path):
        return
    if path.is_file():
        with open(path, "rb") as file:
            head = file.read(4096)
            file.seek(max(0, file.seek(0, os.SEEK_END) - 256))
            if MARK in head or MARK in file.read():
                return
    raise UsageError(f"{path} is there already, and pyzoo did not write it: move it away, or choose another --out")
