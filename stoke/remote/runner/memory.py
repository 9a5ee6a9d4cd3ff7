"""Memory: the container's limit and out-of-memory kills, from its cgroup (v2, then v1)."""

from __future__ import annotations


def out_of_memory_kills() -> int:
    """Return how many processes of this container the kernel has killed because memory ran out."""
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        try:
            with open(path) as file:
                for line in file:
                    name, _, count = line.partition(" ")
                    if name == "oom_kill":
                        return int(count)
        except OSError:
            pass
    return 0


def memory_limit() -> int | None:
    """Return the container's memory limit in bytes, or None if it has none."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            with open(path) as file:
                limit = int(file.read())
        except (OSError, ValueError):  # "max"
            continue
        return limit if limit < 1 << 60 else None
    return None


def reset_peak_memory() -> None:
    """Reset this process's peak: a child inherits it, and downloading uv needs more than most code."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass
