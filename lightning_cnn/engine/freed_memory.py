"""Memory of large tensors on the CPU: kept for the next step instead of being returned to the system."""

import ctypes
import os
import platform

# mallopt(3) of glibc
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
ALREADY_SET = ("GLIBC_TUNABLES", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def keep_freed_memory() -> bool:
    """Makes malloc keep freed memory for the rest of the process.

    glibc takes the memory of a large tensor from the system and returns it when the tensor is freed, so that in each
    step the system has to clear the same pages again. Other C libraries, and settings of malloc in the environment, are
    left alone; where another allocator is loaded, this has no effect.

    Returns:
        Whether it keeps it.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in ALREADY_SET):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
