"""Keeping freed memory between steps instead of handing it back to the kernel."""

import ctypes

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from glibc's malloc.h


def keep_freed_memory() -> bool:
    """Tells glibc's allocator to keep what the process frees; returns whether it could.

    A training step frees and takes the same large blocks again. By default glibc maps and unmaps each of them, and the kernel
    clears the pages every time, which can cost more than the arithmetic. It acts on the whole process, so the ``pyzoo``
    command calls it and importing pyzoo does not. Elsewhere than on glibc it does nothing.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
