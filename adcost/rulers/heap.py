"""Holes in glibc's heap: what was freed between blocks that live, and is given to whoever asks next.

A program that is given such memory takes none from the system: neither the process's peak nor a limit on its data tells
of it. A process that has compiled a lot has holes of tens of MiB.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

LARGEST, SMALLEST = 2**17, 2**12  # bytes: larger requests are mapped, smaller holes stay


@contextmanager
def filled() -> Iterator[None]:
    """Holes are taken meanwhile, so that every request is one to the system.

    In a process whose threads share one heap (``MALLOC_ARENA_MAX=1``).
    """
    libc = ctypes.CDLL(None)
    malloc, free, end = libc.malloc, libc.free, libc.sbrk
    malloc.restype = end.restype = ctypes.c_void_p
    malloc.argtypes, free.argtypes, end.argtypes = [ctypes.c_size_t], [ctypes.c_void_p], [ctypes.c_ssize_t]
    blocks = []
    size = LARGEST
    while size >= SMALLEST:
        before, block = end(0), malloc(size - 64)  # with what glibc puts before it still below the largest
        if block is not None and block < before == end(0):
            blocks.append(block)
        else:  # no hole of this heap held it
            free(block)
            size //= 2
    try:
        yield
    finally:
        for block in blocks:
            free(block)
