"""Every script of docs/examples runs, in order, in one folder: later ones read what earlier ones wrote."""

from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
NAMES = ["data", "training", "evaluation", "rag", "export", "mining", "lora", "sweep", "service"]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reader")


def test_the_examples_are_those_that_are_documented() -> None:
    found = sorted(file.name for file in EXAMPLES.glob("*.py"))
    assert found == [f"{number:02}_{name}.py" for number, name in enumerate(NAMES, 1)]
    page = (EXAMPLES.parent / "rag.md").read_text()
    assert all(f"examples/{name}" in page for name in found)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [f"{number:02}_{name}" for number, name in enumerate(NAMES, 1)])
def test_an_example_runs(name: str, reader: Path, ray_cluster, forks: Any) -> None:
    log, address = reader / f"{name}.log", ray_cluster.get_runtime_context().gcs_address
    process = forks.start(EXAMPLES / f"{name}.py", [], cwd=reader, log=log, RAY_ADDRESS=address)
    assert process.wait(580) == 0, log.read_text()[-3000:]
    assert log.read_text().strip(), "an example says what it did"
