"""`pydocs`: a retrieval collection made of the documentation that every Python installation carries.

The first sentence of a docstring is the query, the rest of that docstring is its one relevant document. Source is
parsed, never imported. Titles stay empty: a module or function name would often repeat the query and turn search
into string matching; the name is in the id, where people see it and models do not.
"""

import ast
import gc
import hashlib
import os
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from ranker.data.pydocs_clean import content_words, first_copies, is_about, is_summary, shingles, split_docstring

SKIPPED_PACKAGES = frozenset({"pip", "setuptools", "pkg_resources", "wheel", "_distutils_hack", "ranker"})
SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "testing", "idle_test", "vendor", "_vendor", "vendored", "_vendored", "third_party", "thirdparty"}
    | {"thirdparty_files", "extern", "externals", "__pycache__"}
)
MAX_FILE_BYTES = 2_000_000
MAX_DOCUMENT_OVERLAP, MAX_QUERY_OVERLAP = 0.6, 0.7
DEV_SHARE, TEST_SHARE = 0.05, 0.15

Named = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Entry(NamedTuple):
    """One documented thing: where it is defined, its summary and what else is said about it."""

    doc_id: str
    module: str
    summary: str
    text: str


class PyDocs(NamedTuple):
    """Corpus, queries and qrels as Arrow tables, and the query ids of each split."""

    corpus: pa.Table
    queries: pa.Table
    qrels: pa.Table
    splits: dict[str, list[str]]


def default_roots() -> list[Path]:
    """The standard library and the folders that packages are installed into."""
    paths = sysconfig.get_paths()
    return [Path(path) for path in dict.fromkeys((paths["stdlib"], paths["purelib"], paths["platlib"]))]


def extract(roots: Sequence[Path] | None = None, *, max_documents: int | None = None, seed: int = 0) -> PyDocs:
    """A collection of docstrings: each query is the summary of one document.

    Whole modules are read in an order that `seed` decides until `max_documents` are found (None: all of them), so that
    a small collection keeps the sibling functions that make search hard. All queries of a module fall into the same
    split. Nothing depends on where or in which order packages were installed.
    """
    files = find_modules(default_roots() if roots is None else roots)
    if not files:
        raise ValueError(
            f"no Python modules under {[str(root) for root in roots or default_roots()]}; name folders of packages"
        )
    order = sorted(files, key=lambda module: (_fraction(seed, module), module))
    entries = _distinct(_read_until(order, files, max_documents))
    return _tables(sorted(entries[:max_documents]), seed)


def find_modules(roots: Iterable[Path]) -> dict[str, Path]:
    """Dotted module name -> file of every module under the roots (earlier roots win), less tests and vendored code."""
    files: dict[str, Path] = {}
    for root in roots:
        for folder, subfolders, names in os.walk(root):
            package = Path(folder).relative_to(root).parts
            skipped = SKIPPED_FOLDERS if package else SKIPPED_FOLDERS | SKIPPED_PACKAGES
            subfolders[:] = sorted(name for name in subfolders if name not in skipped and name.isidentifier())
            for name in sorted(names):
                stem, suffix = os.path.splitext(name)
                if suffix == ".py" and not stem.startswith("test_") and not stem.endswith("_test"):
                    parts = package if stem == "__init__" and package else (*package, stem)
                    files.setdefault(".".join(parts), Path(folder, name))
    return files


def read_module(module: str, path: Path) -> list[Entry]:
    """The usable docstrings of one file, in its order; none where the file is not valid Python."""
    try:
        source = path.read_bytes()
        if len(source) > MAX_FILE_BYTES or (b'"""' not in source and b"'''" not in source):
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's files
            tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []  # broken and template files are normal in an installation; they hold no documentation
    entries = []
    for qualified_name, node in _definitions(tree.body):
        docstring = ast.get_docstring(node)
        if docstring and "\n" in docstring:
            summary, text = split_docstring(docstring)
            if is_summary(summary) and is_about(summary, text):
                entries.append(Entry(f"{module}:{qualified_name}", module, summary, text))
    return entries


def _definitions(body: Sequence[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Named]]:
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            yield from _definitions([*node.body, *node.orelse], prefix)
        elif isinstance(node, Named):
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from _definitions(node.body, f"{prefix}{node.name}.")


def _read_until(order: Sequence[str], files: dict[str, Path], max_documents: int | None) -> list[Entry]:
    """Entries of whole modules, a quarter more than asked for because copies among them will be dropped."""
    entries: dict[str, Entry] = {}
    was_enabled = gc.isenabled()
    gc.disable()  # syntax trees hold no cycles, and collecting among them doubles the time
    try:
        for module in order:
            if max_documents is not None and len(entries) >= 1.25 * max_documents:
                break
            for entry in read_module(module, files[module]):
                entries.setdefault(entry.doc_id, entry)
    finally:
        if was_enabled:
            gc.enable()
    return list(entries.values())


def _distinct(entries: list[Entry]) -> list[Entry]:
    """One entry of every group that shares its document (inherited or pasted) or its query."""
    entries = [entries[i] for i in first_copies([shingles(entry.text) for entry in entries], MAX_DOCUMENT_OVERLAP)]
    return [entries[i] for i in first_copies([content_words(entry.summary) for entry in entries], MAX_QUERY_OVERLAP)]


def _tables(entries: Sequence[Entry], seed: int) -> PyDocs:
    doc_ids = pa.array([entry.doc_id for entry in entries], pa.string())
    query_ids = pa.array([f"{entry.doc_id}?" for entry in entries], pa.string())
    texts = pa.array([entry.text for entry in entries], pa.string())
    summaries = pa.array([entry.summary for entry in entries], pa.string())
    titles = pa.array([""] * len(entries), pa.string())
    relevance = pa.array([1] * len(entries), pa.int32())
    splits: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for entry in entries:
        splits[_split(entry.module, seed)].append(f"{entry.doc_id}?")
    return PyDocs(
        corpus=pa.table({"doc_id": doc_ids, "title": titles, "text": texts}),
        queries=pa.table({"query_id": query_ids, "text": summaries}),
        qrels=pa.table({"query_id": query_ids, "doc_id": doc_ids, "relevance": relevance}),
        splits=splits,
    )


def _split(module: str, seed: int) -> str:
    place = _fraction(seed, f"split of {module}")
    if place < TEST_SHARE:
        return "test"
    return "dev" if place < TEST_SHARE + DEV_SHARE else "train"


def _fraction(seed: int, text: str) -> float:
    """A number in [0, 1) that a text always gets, on any machine."""
    digest = hashlib.blake2b(f"{seed}:{text}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
