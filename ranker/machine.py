"""What this machine has, without importing torch: cores and instruction sets."""

import os
from pathlib import Path

# What decides the speed of a forward pass on a CPU, as Linux names it.
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")


def available_cpus() -> int:
    """Cores that this process may use, a container's quota and affinity included."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, _, period = quota.read_text().partition(" ")
        if limit.strip().isdigit():
            return max(1, min(affinity, round(int(limit) / int(period))))
    return affinity


def instruction_sets(cpuinfo: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Which of INSTRUCTION_SETS the processor has; empty where the system does not say."""
    if not cpuinfo.is_file():
        return ()
    for line in cpuinfo.read_text("utf-8", errors="replace").splitlines():
        if line.startswith(("flags", "Features")):
            flags = set(line.partition(":")[2].split())
            return tuple(name for name in INSTRUCTION_SETS if name in flags)
    return ()


def cpu_has_bf16(sets: tuple[str, ...] | None = None) -> bool:
    """Whether bf16 matrix products are done by the processor and not emulated."""
    return any(name in ("avx512_bf16", "amx_bf16") for name in (instruction_sets() if sets is None else sets))
