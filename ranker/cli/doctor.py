"""`ranker doctor`: what is installed, what is missing and how to add it, and what this machine will choose."""

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ranker.machine import available_cpus, instruction_sets


@dataclass(frozen=True)
class Finding:
    """One package that the project asks for.

    Args:
        name: with extras as declared. wanted: version range. found: installed version or None.
        extra: the optional group it belongs to; None when it is required.
    """

    name: str
    wanted: str
    found: str | None
    extra: str | None

    @property
    def fits(self) -> bool:
        """Whether it is there at a version of the range; a build with a local tag (2.13.0+cpu) counts as its base."""
        return self.found is not None and SpecifierSet(self.wanted).contains(self.found, prereleases=True)

    @property
    def remedy(self) -> str:
        """The command that adds it; empty when there is nothing to do."""
        return "" if self.fits else f"pip install '{self.name}{self.wanted}'"


def check(declared: list[str] | None = None) -> list[Finding]:
    """Compare what the distribution declares with what is installed."""
    findings = []
    for line in requires("ranker") or [] if declared is None else declared:
        requirement = Requirement(line)
        extra = _extra(requirement)
        environment = {"extra": extra or ""}
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        name = requirement.name + (f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else "")
        findings.append(Finding(name, str(requirement.specifier), _installed(requirement.name), extra))
    return findings


def _extra(requirement: Requirement) -> str | None:
    marker = str(requirement.marker or "")
    return marker.partition("extra ==")[2].strip(" \"'") or None


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def missing(findings: list[Finding]) -> list[Finding]:
    """What is required and not there, or there at another version."""
    return [finding for finding in findings if finding.extra is None and not finding.fits]


def machine() -> dict[str, str]:
    """Processor, accelerator, and the engine and precision that `auto` takes on this machine."""
    facts = {
        "python": platform.python_version(),
        "cores": str(available_cpus()),
        "instruction sets": ", ".join(instruction_sets()) or "unknown",
        "accelerator": "none",
    }
    try:
        import torch
    except ImportError as error:
        return facts | {"accelerator": f"unknown: {error}"}
    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}
        facts["accelerator"] = f"{torch.cuda.device_count()} x {', '.join(sorted(names))}"
        facts |= {f"{use} on a GPU ({field}: 1)": value for use, field, value in _choices("cuda")}
    return facts | {f"{use} on the CPU": value for use, _, value in _choices("cpu")}


def _choices(device: str) -> list[tuple[str, str, str]]:
    """(use, field that gives a stage a GPU, engine and precision), asked of the code that will decide."""
    try:
        from ranker.config import TrainConfig
        from ranker.scoring.torch_engine import choose_precision
        from ranker.training.engine import choose_for_device
    except ImportError as error:
        return [("training and scoring", "", f"unknown: {error}")]
    return [
        ("training", "train.gpus_per_worker", f"DeepSpeed, {choose_for_device(TrainConfig(), device)}"),
        ("scoring", "evaluate.gpus_per_worker", f"torch, {choose_precision('auto', device)}"),
    ]


def show() -> int:
    """Print both tables; the exit status."""
    console = Console()
    findings = check()
    table = Table(title="Packages")
    for heading in ("package", "installed", "wanted", "to add it"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        kind = "" if finding.extra is None else f" (optional: {finding.extra})"
        mark = "green" if finding.fits else ("red" if finding.extra is None else "yellow")
        found = f"[{mark}]{finding.found or 'missing'}[/{mark}]"
        table.add_row(escape(finding.name) + kind, found, finding.wanted, escape(finding.remedy))
    console.print(table)
    facts = Table(title="This machine", show_header=False)
    for name, value in machine().items():
        facts.add_row(name, value)
    console.print(facts)
    lacking = missing(findings)
    if lacking:
        everything = " ".join(f"'{finding.name}{finding.wanted}'" for finding in lacking)
        console.print(f"{len(lacking)} required missing or at another version; add them with", style="red")
        console.print(f"  pip install {everything}", markup=False, soft_wrap=True)
        return 1
    console.print("everything that is required is here", style="green")
    return 0
