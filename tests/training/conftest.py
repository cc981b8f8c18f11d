"""A training set small enough to see: six animals, one right text a query."""

import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.config import Experiment, RayConfig, TrainConfig
from ranker.data.stored import save_collection
from ranker.manifest import run_stage
from ranker.retrieval import embed
from ranker.retrieval.index import build_index
from ranker.schemas import CORPUS, GROUPS, QRELS, QUERIES

ANIMALS = ("cat", "dog", "bird", "fish", "frog", "horse")


def animal_groups(number: int) -> pa.Table:
    """Groups of one text about the animal of the query and three about others."""
    rows = []
    for row in range(number):
        animal, *others = [ANIMALS[(row + shift) % 6] for shift in range(4)]
        documents = [f"the {name} is here{' and there' * (row % 3)}" for name in (animal, *others)]
        rows.append(
            {"query_id": f"q{row}", "query": f"where is a {animal}", "documents": documents, "labels": [1.0, 0, 0, 0]}
        )
    return pa.Table.from_pylist(rows, schema=GROUPS)


def write_animals(folder: Path, number: int = 48, with_dev: bool = True) -> Path:
    """groups.parquet, and dev tables beside it: six queries, the right text last in the retriever's order."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(animal_groups(number), folder / "groups.parquet")
    if with_dev:
        dev = animal_groups(6).to_pylist()
        for group in dev:
            group["documents"], group["labels"] = group["documents"][::-1], group["labels"][::-1]
            group["doc_ids"] = [f"{group['query_id']}-{place}" for place in (3, 2, 1, 0)]
        schema = GROUPS.append(pa.field("doc_ids", pa.list_(pa.string())))
        pq.write_table(pa.Table.from_pylist(dev, schema=schema), folder / "dev_groups.parquet")
        qrels = [{"query_id": f"q{row}", "doc_id": f"q{row}-0", "relevance": 1} for row in range(6)]
        pq.write_table(pa.Table.from_pylist(qrels, schema=QRELS), folder / "dev_qrels.parquet")
    return folder / "groups.parquet"


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """Folder of 48 groups with dev tables."""
    write_animals(tmp_path / "animals")
    return tmp_path / "animals"


@pytest.fixture(scope="session")
def one_worker_group():
    """A gloo process group of this process alone, which is all that DeepSpeed needs."""
    import os

    import torch.distributed

    from ranker.training.engine import name_accelerator

    name_accelerator("cpu")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    names = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    torch.distributed.init_process_group("gloo", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()
    for name, value in before.items():
        if value is None:
            os.environ.pop(name)
        else:
            os.environ[name] = value


@pytest.fixture
def train_config(tiny_backbone: str) -> Callable[..., TrainConfig]:
    """A section for the animals: fp32, one worker, eight steps of four groups."""

    def make(**changes: object) -> TrainConfig:
        defaults = {
            "model": tiny_backbone, "num_workers": 1, "batch_size": 4, "group_size": 4, "max_length": 32,
            "max_steps": 8, "epochs": 100, "learning_rate": 1e-3, "precision": "fp32",
            "checkpoint_every": 4, "log_every": 2,
        }  # fmt: skip
        return TrainConfig.model_validate(defaults | changes)

    return make


@pytest.fixture(scope="session")
def sentences() -> Callable[..., list[str]]:
    """:func:`make_sentences`."""
    return make_sentences


WORDS = [
    "dog", "cat", "bird", "fish", "pond", "house", "garden", "water", "food", "night", "day", "sleeps", "eats", "sings",
    "runs", "barks", "purrs", "flies", "swims",
]  # fmt: skip


def make_sentences(count: int, seed: int = 0) -> list[str]:
    """Some words in a row, seeded."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(5, 9))) for _ in range(count)]


@pytest.fixture(scope="module")
def talk() -> tuple[list[str], list[str], list[list[str]]]:
    """60 documents of which ten stand twice, 12 queries of which two ask the same, and their one to three answers."""
    documents = make_sentences(50)
    queries = make_sentences(12, seed=1)
    queries[7] = queries[2]
    answers = [random.Random(n).sample(documents, 1 + n % 3) for n in range(12)]
    return documents + documents[:10], queries, answers


@pytest.fixture(scope="module")
def built(
    talk: Any, tiny_retriever: str, encoding_class: Any, tmp_path_factory: pytest.TempPathFactory, ray_cluster: Any
) -> Experiment:
    """Index and embeddings of the talk, in three shards; no margin, three negatives."""
    documents, queries, answers = talk
    config = Experiment(
        output_dir=str(tmp_path_factory.mktemp("talk")),
        index={"model": tiny_retriever, "num_workers": 1, "shard_size": 25, "precision": "fp32"},
        mine={"num_negatives": 3, "relative_margin": None, "near_duplicates": None},
        ray=RayConfig(num_cpus=2),
    )
    corpus = pa.table([[f"d{n}" for n in range(60)], [""] * 60, documents], schema=CORPUS)
    table = pa.table([[f"q{n}" for n in range(12)], queries], schema=QUERIES)
    rows = [(f"q{n}", f"d{documents.index(text)}", 1) for n, known in enumerate(answers) for text in known]
    qrels = pa.table([list(column) for column in zip(*rows, strict=True)], schema=QRELS)
    run_stage(
        "data", config.folder("data"), {}, {}, lambda work: save_collection(work, corpus, table, {"train": qrels}) or {}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embed, "_encoded", encoding_class())
        build_index(config)
    return config
