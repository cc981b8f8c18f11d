"""A stage `mine` of the pets that fits on a screen, and an experiment with tiny trials on it."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from ranker.config import Experiment
from ranker.schemas import GROUPS, QRELS


def groups_of(pets) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Every train query with its document and two others; the dev queries with all ten."""
    corpus = [json.loads(line) for line in (pets / "corpus.jsonl").read_text().splitlines()]
    texts = {row["_id"]: f"{row['title']} {row['text']}".strip() for row in corpus}
    queries = {row["_id"]: row["text"] for row in map(json.loads, (pets / "queries.jsonl").read_text().splitlines())}
    split = lambda name: [line.split("\t") for line in (pets / "qrels" / f"{name}.tsv").read_text().splitlines()[1:]]  # noqa: E731
    train = []
    for query_id, doc_id, _ in split("train"):
        others = [text for other, text in texts.items() if other != doc_id][:2]
        train.append((query_id, queries[query_id], [texts[doc_id], *others], [1.0, 0.0, 0.0]))
    dev = [
        (query_id, queries[query_id], list(texts.values()), [float(name == doc_id) for name in texts], list(texts))
        for query_id, doc_id, _ in split("dev")
    ]
    schema = GROUPS.append(pa.field("doc_ids", pa.list_(pa.string())))
    judged = [(query_id, doc_id, 1) for query_id, doc_id, _ in split("dev")]
    tables = ((train, GROUPS), (dev, schema), (judged, QRELS))
    groups, dev_groups, qrels = (
        pa.table([pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), wanted.types, strict=True)],
                 schema=wanted)
        for rows, wanted in tables
    )  # fmt: skip
    return groups, dev_groups, qrels


def mined_in(folder: Path, pets) -> Path:
    """groups.parquet and the dev tables in a new folder."""
    folder.mkdir()
    for name, table in zip(("groups", "dev_groups", "dev_qrels"), groups_of(pets), strict=True):
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


@pytest.fixture
def mined(pets, tmp_path) -> Path:
    """:func:`mined_in`."""
    return mined_in(tmp_path / "mined", pets)


@pytest.fixture(scope="session")
def make_experiment(pets, tiny_backbone) -> Callable[[Path], Experiment]:
    """In a folder: three random trials of fp32 and one worker, one at a time, without repeats."""

    def make(folder: Path) -> Experiment:
        space, mined = folder / "space.yaml", folder / "mined"
        space.write_text(yaml.safe_dump({
            "train.learning_rate": {"sampler": "loguniform", "lower": 1e-4, "upper": 1e-2},
            "train.loss": {"sampler": "choice", "categories": ["lce", "bce"]},
        }))  # fmt: skip
        if not mined.exists():
            mined_in(mined, pets)
        return Experiment().with_overrides({
            "output_dir": str(folder / "run"), "train.model": tiny_backbone,
            "train.groups": str(mined / "groups.parquet"),
            "train.num_workers": 1, "train.batch_size": 2, "train.max_length": 32, "train.group_size": 3,
            "train.precision": "fp32", "tune.space": str(space), "tune.num_trials": 3, "tune.max_concurrent": 1,
            "tune.num_seeds": 0,
        })  # fmt: skip

    return make


@pytest.fixture
def experiment(make_experiment, tmp_path) -> Experiment:
    """:func:`make_experiment` in the test's folder."""
    return make_experiment(tmp_path)
