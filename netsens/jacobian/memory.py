"""How much memory a run may take, and sizes as people write them."""

from __future__ import annotations

import os


def free_memory() -> int:
    """Bytes of memory that are free on this machine, as far as it says."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return 4 << 30


def working_memory(limit: int | None) -> int:
    """The bytes that passes may hold: the user's limit, or half of what is free."""
    return limit if limit is not None else free_memory() // 2


def fits(size: int, limit: int | None) -> bool:
    """Whether a result of so many bytes leaves half of the memory allowed to what computes it."""
    return size <= (limit if limit is not None else free_memory()) // 2


def readable(size: float) -> str:
    """1536 as "1.5 KiB"."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
