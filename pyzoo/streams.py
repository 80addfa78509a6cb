"""Streams that outlive their readers: what a terminal does must not hurt a training. And loggers that say less."""

import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator
from typing import TextIO

__all__ = ["lasting_streams", "logger_at"]


class LastingStream(io.TextIOBase):
    """A text stream that drops what can't be written, because its reader has gone, it was closed or its disk is full.

    Characters that its encoding lacks are written as escapes.

    Args:
        stream: where to write, or None for nowhere.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream
        self.lost: OSError | None = None
        """Why something could not be written, if it was not that a reader has gone."""

    @property
    def encoding(self) -> str:
        return getattr(self.stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        self._try("write", text.encode(self.encoding, "backslashreplace").decode(self.encoding))
        return len(text)

    def flush(self) -> None:
        self._try("flush")

    def isatty(self) -> bool:
        try:
            return self.stream is not None and self.stream.isatty()
        except ValueError:  # closed
            return False

    def fileno(self) -> int:
        if self.stream is None:
            raise OSError("no file")
        return self.stream.fileno()

    def writable(self) -> bool:
        return True

    def _try(self, method: str, *arguments: str) -> None:
        if self.stream is None:
            return
        try:
            getattr(self.stream, method)(*arguments)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
                self.lost = error
            self._give_up()

    def _give_up(self) -> None:
        """Sends what the stream still holds, which Python writes when it ends, nowhere."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.stream.fileno())
            os.close(nowhere)
        self.stream = None


@contextlib.contextmanager
def lasting_streams() -> Iterator[None]:
    """The context in which standard output and standard error are :class:`LastingStream` objects."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(LastingStream, before)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


@contextlib.contextmanager
def logger_at(name: str, level: int) -> Iterator[None]:
    """The context in which a logger says nothing below a level."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
