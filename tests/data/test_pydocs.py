"""The `pydocs` collection, made from tiny packages that stand in full view."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ranker.data.pydocs import extract, find_modules, read_module
from ranker.data.pydocs_clean import first_copies, is_about, is_summary, split_docstring

MERGE = "Rows are matched on the key columns of the left and the right table; rows without a partner get empty cells."
SORT = "The sorting algorithm is stable, so rows with equal keys keep their order; missing keys go to the very end."
CACHE = "An entry in the cache that nobody has read for the expiry time goes first; reading renews its expiry time."


def function(name: str, summary: str, text: str) -> str:
    return f'def {name}():\n    """{summary}\n\n    {text}\n    """\n\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two packages: `tables` with a class and a pasted function, `caches` with one function and folders to skip."""
    merge = textwrap.indent(function("merge", "Merge two tables on their key columns.", MERGE), "    ")
    files = {
        "tables/__init__.py": "class Table:\n" + merge,
        "tables/order.py": function("sort_rows", "Sort the rows of tables by several keys.", SORT),
        "tables/pasted.py": function("join_tables", "Combine tables that share some columns.", MERGE + " Always."),
        "caches/store.py": function("evict", "Evict the entries whose expiry time has passed.", CACHE),
        "caches/tests/test_store.py": function(
            "evict_twice", "Check that expiry entries are evicted twice.", CACHE[::-1]
        ),
        "caches/_vendor/tables.py": function("sort_cells", "Sort the cells of tables by colour keys.", SORT[::-1]),
        "caches/broken.py": "def broken(:\n",
        "caches/null.py": 'x = """\0"""\n',
    }
    for name, source in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return tmp_path


def test_a_summary_becomes_the_query_of_the_rest_of_its_docstring(root: Path) -> None:
    corpus, queries, qrels, splits = extract([root])
    ids = ["caches.store:evict", "tables.order:sort_rows", "tables:Table.merge"]
    assert corpus.to_pylist()[2] == {"doc_id": ids[2], "title": "", "text": MERGE}
    assert queries.to_pylist()[2] == {"query_id": f"{ids[2]}?", "text": "Merge two tables on their key columns."}
    assert qrels.to_pylist() == [{"query_id": f"{i}?", "doc_id": i, "relevance": 1} for i in ids]
    assert sorted(query_id for ids in splits.values() for query_id in ids) == [f"{i}?" for i in ids]
    assert str(qrels.schema.field("relevance").type) == "int32"


def test_tests_vendored_copies_and_broken_files_are_left_out(root: Path) -> None:
    assert sorted(find_modules([root])) == [
        "caches.broken",
        "caches.null",
        "caches.store",
        "tables",
        "tables.order",
        "tables.pasted",
    ]
    assert read_module("caches.broken", root / "caches/broken.py") == []
    assert read_module("caches.null", root / "caches/null.py") == []


def test_the_pasted_document_appears_once(root: Path) -> None:
    texts = extract([root]).corpus["text"].to_pylist()
    assert len([text for text in texts if text.startswith("Rows are matched")]) == 1


def test_the_same_packages_give_the_same_tables_wherever_they_are_and_whatever_the_hash_seed(
    root: Path, tmp_path: Path
) -> None:
    moved = tmp_path.parent / f"{tmp_path.name}-moved"
    for path in sorted(root.rglob("*.py"), reverse=True):  # another creation order
        (moved / path.relative_to(root)).parent.mkdir(parents=True, exist_ok=True)
        (moved / path.relative_to(root)).write_bytes(path.read_bytes())
    code = "import sys; from pathlib import Path; from ranker.data.pydocs import extract\n"
    code += "d = extract([Path(sys.argv[1])]); print(d.corpus.to_pylist(), d.queries.to_pylist(), d.splits)"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True, text=True, check=True,
        ).stdout
        for folder, hash_seed in ((root, "1"), (moved, "2"))
    }  # fmt: skip
    assert len(outputs) == 1


def test_a_cap_keeps_whole_modules_and_another_seed_takes_others(root: Path) -> None:
    one = [extract([root], max_documents=1, seed=seed).corpus["doc_id"].to_pylist() for seed in range(8)]
    assert all(len(ids) == 1 for ids in one)
    assert len({ids[0] for ids in one}) > 1


def test_all_queries_of_a_module_are_in_one_split(tmp_path: Path) -> None:
    subjects = ["sockets", "threads", "matrices", "colours", "dates", "fonts", "archives", "sounds", "graphs", "tokens"]
    for number in range(40):
        name = f"{subjects[number % 10]} number {number}"
        body = " ".join(f"{subjects[(number + i) % 10]}{number + i}" for i in range(25))
        (tmp_path / f"module{number}.py").write_text(
            function("read", f"Read {name} slowly from disk.", body)
            + function("write", f"Upload {name} over cables.", body[::-1] + name + " disk cables upload")
        )
    splits = extract([tmp_path]).splits
    modules = [{query_id.split(":")[0] for query_id in ids} for ids in splits.values()]
    assert sum(map(len, modules)) == len(set().union(*modules))
    assert len(splits["train"]) > len(splits["test"]) > 0


def test_an_empty_folder_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no Python modules under .*; name folders of packages"):
        extract([tmp_path])


@pytest.mark.parametrize(
    ("docstring", "summary", "text"),
    [
        ("Open a :class:`~io.File`. It must exist.\n\nSee below.", "Open a File.", "It must exist.\nSee below."),
        ("Sum it, e.g. rows.\n\n>>> f(1)\n1\n\nTail.", "Sum it, e.g. rows.", "Tail."),
        (
            "Do.\n\nParameters\n----------\nx : int\n    Width.\n\nSee Also\n--------\ng : Other.",
            "Do.",
            "Parameters: x : int Width.",
        ),
        ("Do.\n\nArgs:\n  x: Width.\n\nExample:\n  f(1)\n", "Do.", "Args: x: Width."),
    ],
)
def test_markup_examples_and_notes_about_other_things_go(docstring: str, summary: str, text: str) -> None:
    assert split_docstring(docstring) == (summary, text)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Merge two tables on their key columns.", True),
        ("Returns the config.", False),
        ("Deprecated since version 3, merge tables instead.", False),
        ("Alias for the merge method of tables.", False),
        ("See merge for the meaning of the columns.", False),
        ("Test that tables with equal columns merge.", False),
        ("hidden_states (tuple of tensors): states of every layer.", False),
        ("x = f(y[0:3]) + {'a': 1} % 2 ** 8", False),
    ],
)
def test_a_summary_describes_its_thing(text: str, kept: bool) -> None:
    assert is_summary(text) is kept


def test_a_document_never_contains_its_own_query() -> None:
    query = "Merge two tables on their key columns."
    assert is_about(query, MERGE)
    assert not is_about(query, MERGE + " merge TWO tables, on their `key_columns`: yes.")
    assert not is_about(query, "On the key columns, two tables merge. " + MERGE)  # the same sentence in another order
    assert not is_about("Compile the regular expression of a router.", MERGE)  # nothing in common
    assert not is_about(query, "The key columns of tables.")  # too short


def test_first_copies_keeps_the_first_of_what_overlaps() -> None:
    items = [frozenset("abcdefgh"), frozenset("stuvwxyz"), frozenset("abcdefgi"), frozenset()]  # 7 of 9 shared
    assert first_copies(items, threshold=0.7) == [0, 1, 3]
    assert first_copies(items, threshold=0.8) == [0, 1, 2, 3]
