"""The rules of the house that a machine can hold."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ranker"
MODULES = sorted(PACKAGE.rglob("*.py"))

# From the ground up. A room may import from the layers below it, and from itself.
LAYERS = [
    {
        "config",
        "schemas",
        "registry",
        "manifest",
        "machine",
        "onnx_session",
        "torch_on_cpu",
        "precision",
        "pretrained",
        "session",
    },
    {"data", "retrieval", "scoring", "measures"},
    {"training", "evaluation", "optimization", "rag"},
    {"serving", "tuning"},
    {"cli"},
]
RAY_MAY_STAND_IN = (
    "session.py",
    "data/",
    "retrieval/embed.py",
    "retrieval/index.py",
    "retrieval/search.py",
    "training/trainer.py",
    "training/worker.py",
    "training/mining.py",
    "training/teacher.py",
    "tuning/",
    "evaluation/",
    "serving/",
    "cli/",
)
WITH_TORCH_OR_RAY = {"session", "torch_on_cpu", "precision"}
HEAVY = {"torch", "ray", "faiss", "transformers", "sentence_transformers", "deepspeed", "datasets"}
FORBIDDEN_ROOMS = {"utils", "common", "core", "helpers"}
TOP_LEVEL = {
    "ranker", "jobs", "serve_configs", "tune_spaces", "tests", "cluster.yaml", "pyproject.toml", "README.md",
    "docs", "benchmarks", "LICENSE", "CHANGELOG.md",
}  # fmt: skip


def imports(file: Path) -> set[str]:
    """Every module that a file imports, at the top or inside a function; not under TYPE_CHECKING."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "ranker" and len(parts) > 1 else None


def layer(name: str) -> int:
    return next(level for level, rooms in enumerate(LAYERS) if name in rooms)


def name_of(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def own_room(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", [f for f in MODULES if f.parent != PACKAGE or f.name != "__init__.py"], ids=name_of)
def test_imports_point_down(file: Path) -> None:
    own = own_room(file)
    for target in sorted({r for module in imports(file) if (r := room(module)) and r != own}):
        if layer(own) == 0 == layer(target):
            continue  # words know each other
        assert layer(target) < layer(own), f"{name_of(file)} imports ranker.{target}, which is not below it"


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_ray_stands_only_in_shells(file: Path) -> None:
    if any(module.split(".")[0] == "ray" for module in imports(file)):
        assert name_of(file).startswith(RAY_MAY_STAND_IN), f"{name_of(file)} imports ray"


@pytest.mark.parametrize("file", [f for f in MODULES if own_room(f) in LAYERS[0] - WITH_TORCH_OR_RAY], ids=name_of)
def test_words_are_light(file: Path) -> None:
    heavy = {module.split(".")[0] for module in imports(file)} & HEAVY
    assert not heavy, f"{name_of(file)} imports {heavy}"


@pytest.mark.parametrize(
    "module",
    # Ray's controller unpickles a Job, and shall not load the whole training loop for it.
    ["ranker.config", "ranker.data", "ranker.training", "ranker.training.job", "ranker.rag", "ranker.cli"],
)
def test_importing_a_room_stays_cheap(module: str) -> None:
    code = f"import sys, {module}; sys.exit(','.join(sorted({HEAVY!r} & set(sys.modules))) or 0)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, f"importing {module} brings in {result.stderr}"


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_walls_of_length(file: Path) -> None:
    source = file.read_text()
    assert source.count("\n") <= 300, f"{name_of(file)} is over 300 lines: a noun is missing"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, (
                f"{name_of(file)}:{node.lineno} {node.name} is over 60 lines"
            )


def test_no_room_without_a_noun() -> None:
    names = {part.removesuffix(".py") for file in MODULES for part in file.relative_to(PACKAGE).parts}
    assert not names & FORBIDDEN_ROOMS


def test_nothing_else_at_the_top() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    found = {line.split("/")[0] for line in listed.splitlines()}
    assert {name for name in found if not name.startswith(".")} <= TOP_LEVEL


def test_no_foreign_code_is_trusted() -> None:
    for file in MODULES:
        tree = ast.parse(file.read_text())
        loads = {module.split(".")[0] for module in imports(file)} & {"pickle", "dill", "joblib"}
        assert not loads, f"{name_of(file)} imports {loads}"
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, f"{name_of(file)}"


BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("file", BENCHMARKS, ids=lambda file: file.stem)
def test_what_a_benchmark_imports_is_there(file: Path) -> None:
    """No test runs them, and a name that was moved would be missed only when somebody measures."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [alias.name for alias in node.names]
            if node.module in {other.stem for other in BENCHMARKS}:
                tree = ast.parse((file.parent / f"{node.module}.py").read_text())
                known = {each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.ClassDef)}
                known |= {target.id for each in tree.body if isinstance(each, ast.Assign | ast.AnnAssign)
                          for target in ast.walk(each) if isinstance(target, ast.Name)}  # fmt: skip
                assert set(names) <= known, f"{file.name}: {node.module} has no {set(names) - known}"
            elif room(node.module):
                module = importlib.import_module(node.module)
                missing = [name for name in names if not hasattr(module, name)]
                assert not missing, f"{file.name}: {node.module} has no {missing}"
