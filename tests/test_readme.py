"""What the README and the pages of docs/ show is true: names exist, links lead somewhere, Python blocks run."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ranker.cli import app
from ranker.config import load_experiment

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text()) if kind == language]


def shell_lines(page: Path) -> list[str]:
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_name_verbs_and_files_that_exist(page: Path) -> None:
    verbs = {command.name or command.callback.__name__ for command in app.registered_commands}
    verbs |= {group.name for group in app.registered_groups}
    for line in shell_lines(page):
        for verb in re.findall(r"(?:^|&& |\s)ranker (\w+)", line):
            assert verb in verbs, line
        for path in re.findall(r"\b((?:jobs|serve_configs|tune_spaces)/[\w.]+\w|cluster\.yaml)", line):
            assert (ROOT / path).exists(), line
        overrides = re.findall(r"--set (\S+)", line)
        if overrides:
            load_experiment(ROOT / "jobs" / "quickstart.yaml", overrides)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_experiments_shown_are_valid(page: Path, tmp_path: Path) -> None:
    for number, text in enumerate(blocks(page, "yaml")):
        if re.search(r"^(name|output_dir|data|train|mine|index|evaluate|export):", text, re.MULTILINE):
            file = tmp_path / f"{number}.yaml"
            file.write_text(text)
            load_experiment(file)


@pytest.fixture
def cluster_address(ray_cluster) -> Iterator[str]:
    """The cluster of this test run, which the blocks join; a service that they leave there ends with the test."""
    yield ray_cluster.get_runtime_context().gcs_address
    from ray import serve

    serve.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_python_blocks_run(page: Path, interrupted_quickstart, cluster_address: str, forks: Any) -> None:
    reader = interrupted_quickstart.reader  # in which a very small quickstart has run
    script = reader / f"{page.stem}_blocks.py"
    body = "\n".join(blocks(page, "python"))
    # Ray starts processes that import this file again.
    script.write_text("if __name__ == '__main__':\n" + "".join(f"    {line}\n" for line in body.splitlines()))
    log = script.with_suffix(".log")
    process = forks.start(script, [], cwd=reader, log=log, RAY_ADDRESS=cluster_address)
    assert process.wait(800) == 0, log.read_text()[-3000:]
