"""How many jobs of a backend run at once, and how many slots each of them takes.

A cluster decides that itself: its backend has no slots here.
"""

from __future__ import annotations

import math
import os
from typing import Any

from stoke.backend.api import Backend
from stoke.config.model import Config

# Memory of this machine for each slot, unless the configuration names the number of slots.
MEMORY_PER_SLOT = 1 << 30


def slots_of(backend: Backend, config: Config) -> int | None:
    """Return how many slots a backend's jobs share; None for a backend whose engine has a queue."""
    if backend.capabilities.pods:
        return None
    return config.queue.slots or default_slots()


def default_slots() -> int:
    """Return one slot for each core of this machine, and at most one for each GiB of its memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(len(os.sched_getaffinity(0)), memory // MEMORY_PER_SLOT))


def slots_for(request: dict[str, Any], slots: int) -> int:
    """Return the slots that a stored request takes: one, or its limits of cores and of memory.

    A job larger than all slots takes all of them, so it runs alone.
    """
    cores, memory = request.get("cpu"), request.get("memory")
    by_cores = math.ceil(cores) if isinstance(cores, int | float) else 1
    by_memory = math.ceil(memory / MEMORY_PER_SLOT) if isinstance(memory, int) else 1
    return min(max(1, by_cores, by_memory), slots)
