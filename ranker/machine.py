"""What this machine has, without importing torch: cores and instruction sets."""

import os
from pathlib import Path
from platform import machine

# What decides the speed of a forward pass on a CPU, as Linux names it.
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")


def available_cpus(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Cores that this process may use, a container's quota and affinity included; of a quota the whole cores.

    A thread more than the quota has would make all of them wait for the next period.

    Args:
        cgroups, own: where Linux shows the limits, and which of them are this process's; version 1 and 2 are read.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = min(_quotas(cgroups, own), default=float(affinity))
    return max(1, min(affinity, int(quota)))


def _quotas(cgroups: Path, own: Path) -> list[float]:
    """Every limit in cores that holds for this process: its own group's and those of the groups above it."""
    places = {cgroups, cgroups / "cpu", cgroups / "cpu,cpuacct"}
    for line in own.read_text("utf-8").splitlines() if own.is_file() else ():
        _, kinds, path = line.split(":", 2)
        if kinds and "cpu" not in kinds.split(","):
            continue
        group = (cgroups / kinds if kinds else cgroups) / path.strip("/")
        places |= {place for place in (group, *group.parents) if place.is_relative_to(cgroups)}
    return [quota for place in places if (quota := _quota(place)) is not None]


def _quota(group: Path) -> float | None:
    try:
        if (group / "cpu.max").is_file():
            limit, _, period = (group / "cpu.max").read_text().partition(" ")
        else:
            limit, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    except OSError:
        return None
    return int(limit) / int(period) if limit.strip().isdigit() else None


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What the processor calls itself, with the instruction sets that decide its speed."""
    lines = cpuinfo.read_text("utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), machine())
    return " ".join((name, *instruction_sets(cpuinfo)))


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
