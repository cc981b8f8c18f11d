"""Every script of docs/examples runs, in order, in one folder: later ones read what earlier ones wrote."""

import os
import subprocess
import sys
from pathlib import Path

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
def test_an_example_runs(name: str, reader: Path, ray_cluster) -> None:
    environment = os.environ | {"RAY_ADDRESS": ray_cluster.get_runtime_context().gcs_address}
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")], cwd=reader, env=environment,
        capture_output=True, text=True, timeout=580,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.strip(), "an example says what it did"
