"""The pairs of a reranking as files that every worker maps into memory: texts stand there once, however many pairs.

``pairs.arrow`` (rows of queries and documents), ``queries.arrow``, ``documents.arrow``, and ``tasks.json``: where each
task, some whole queries, begins. Scores are ``part-NNNNN.parquet`` in a folder of their model.
"""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ranker.data.parts import hash_ids
from ranker.manifest import write_json
from ranker.schemas import CORPUS, Collection, document_texts

PAIRS_PER_TASK = 512
PAIRS = pa.schema([("query", pa.int32()), ("document", pa.int32()), ("rank", pa.int32())])
TEXTS = pa.schema([("id", pa.string()), ("text", pa.string())])
SCORES = pa.schema([("score", pa.float64())])


class PairScorer(Protocol):
    """Anything with :meth:`ranker.scoring.scorer.Scorer.score`."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """float32 logits (n,)."""
        ...


@dataclass(frozen=True)
class Tasks:
    """The pairs in a folder, cut into tasks.

    Args:
        edges: first pair of each task, and the number of pairs.
    """

    folder: Path
    edges: tuple[int, ...]

    @property
    def num_pairs(self) -> int:
        """Of all tasks."""
        return self.edges[-1]

    def __len__(self) -> int:
        return len(self.edges) - 1

    def pairs(self, low: int, high: int) -> list[tuple[str, str]]:
        """(query, document) texts of the pairs from row ``low`` to ``high``."""
        rows = _mapped(self.folder / "pairs.arrow").slice(low, high - low)
        queries, documents = _mapped(self.folder / "queries.arrow"), _mapped(self.folder / "documents.arrow")
        asked = queries["text"].take(rows["query"]).to_pylist()
        return list(zip(asked, documents["text"].take(rows["document"]).to_pylist(), strict=True))

    def of_task(self, number: int) -> list[tuple[str, str]]:
        """The pairs of one task."""
        return self.pairs(self.edges[number], self.edges[number + 1])


def write_tasks(top: pa.Table, collection: Collection, folder: Path, pairs_per_task: int = PAIRS_PER_TASK) -> Tasks:
    """Put the pairs of RUN and their texts into ``folder``; what an interrupted call has put there is taken as it lies.

    The corpus is read once, a block at a time, and only the texts that the run names go through memory.

    Args:
        top: from :func:`ranker.evaluation.lists.top_of`, ordered by query.

    Raises:
        ValueError: naming ids of the run that the collection does not have.
    """
    if not (folder / "tasks.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        wanted = top["query_id"].unique()
        queries = collection.queries.filter(pc.is_in(collection.queries["query_id"], wanted))
        _write(folder / "queries.arrow", TEXTS, [pa.table([queries["query_id"], queries["text"]], schema=TEXTS)])
        _write(folder / "documents.arrow", TEXTS, _texts(top, collection))
        columns = [
            _places(top[column], _mapped(folder / f"{noun}.arrow")["id"], column)
            for column, noun in (("query_id", "queries"), ("doc_id", "documents"))
        ]
        _write(folder / "pairs.arrow", PAIRS, [pa.table([*columns, top["rank"]], schema=PAIRS)])
        write_json(folder / "tasks.json", cut(top["query_id"], pairs_per_task))
    return open_tasks(folder)


def open_tasks(folder: Path) -> Tasks:
    """What :func:`write_tasks` left.

    Raises:
        FileNotFoundError: on a node that does not see the folder.
    """
    file = folder / "tasks.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: not seen from this node; put output_dir on storage that all nodes see")
    return Tasks(folder, tuple(json.loads(file.read_text("utf-8"))))


def cut(query_ids: pa.ChunkedArray, pairs_per_task: int) -> list[int]:
    """Edges of tasks of whole queries, each of at least ``pairs_per_task`` pairs but the last.

    They depend on the run only, so that another number of workers goes on with the same tasks.
    """
    ids = query_ids.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    starts = np.append(np.flatnonzero(ids[1:] != ids[:-1]) + 1, len(ids)).tolist()
    edges = [0]
    for start in starts:
        if start - edges[-1] >= pairs_per_task:
            edges.append(start)
    return edges if edges[-1] == len(ids) else [*edges, len(ids)]


def score_task(scorer: PairScorer, tasks: Tasks, number: int, folder: Path) -> None:
    """Write the scores of one task to ``folder``, whole or not at all; when it began and ended stands with them."""
    started = time.time()
    scores = np.asarray(scorer.score(tasks.of_task(number)), dtype=np.float64)
    table = pa.table([pa.array(scores)], schema=SCORES)
    write_parquet(
        table.replace_schema_metadata({"started": str(started), "ended": str(time.time())}), part(folder, number)
    )


def missing_tasks(tasks: Tasks, folder: Path) -> list[int]:
    """Numbers of the tasks whose scores are not there."""
    return [number for number in range(len(tasks)) if not part(folder, number).is_file()]


def read_scores(tasks: Tasks, folder: Path) -> NDArray[np.float64]:
    """The scores of all pairs, in order."""
    found = [pq.read_table(part(folder, number))["score"].to_numpy() for number in range(len(tasks))]
    return np.concatenate([np.zeros(0), *found])


def part(folder: Path, number: int) -> Path:
    """Where the scores of a task lie."""
    return folder / f"part-{number:05d}.parquet"


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table to a temporary name and rename it: a file is whole or not there."""
    temporary = path.with_name(f".{path.name}.tmp")
    pq.write_table(table, temporary)
    temporary.replace(path)


def _texts(top: pa.Table, collection: Collection) -> Iterator[pa.Table]:
    """TEXTS of the documents whose id has the hash of one that the run names, a block of the corpus at a time."""
    wanted = np.unique(hash_ids(top["doc_id"])) if top.num_rows else np.zeros(0, dtype=np.uint64)
    for block in collection.documents.blocks(CORPUS.names) if len(wanted) else ():
        hashes = hash_ids(block["doc_id"])
        places = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
        found = block.filter(pa.array(wanted[places] == hashes))
        if found.num_rows:
            yield pa.table([found["doc_id"], pa.array(document_texts(found), pa.string())], schema=TEXTS)


def _places(ids: pa.ChunkedArray, known: pa.ChunkedArray, noun: str) -> pa.ChunkedArray:
    places = pc.index_in(ids, known.combine_chunks())
    if places.null_count:
        unknown = ids.filter(pc.is_null(places)).unique().to_pylist()
        shown = ", ".join(map(repr, unknown[:5]))
        raise ValueError(
            f"run: {len(unknown)} {noun}s of it are not in the collection: {shown}; use the run's own collection"
        )
    return places


def _write(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for table in tables:
            writer.write_table(table.combine_chunks())
    temporary.replace(path)


def _mapped(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
