"""The DATASETS registry: one function a data set, keyword arguments are its options.

An entry returns :class:`ranker.data.splits.Splits`. The known collections take ``path``, a copy in BEIR layout, for
machines that cannot fetch them.
"""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ranker.data.beir import read_beir
from ranker.data.ir_sets import read_ir_dataset
from ranker.data.splits import Splits, sample_splits
from ranker.registry import Registry

DATASETS: Registry[Callable[..., Splits]] = Registry("data set")


@DATASETS.register("pydocs")
def pydocs(*, max_documents: int | None = None, roots: list[str] | None = None, seed: int = 0) -> Splits:
    """Documentation of the installed Python packages: a docstring's first sentence asks for the rest of it.

    Args:
        max_documents: stop after this many. None: all.
        roots: folders of Python source. None: the standard library and everything installed.
        seed: of the order in which modules are read and of the splits.
    """
    from ranker.data.pydocs import extract

    found = extract([Path(root) for root in roots] if roots else None, max_documents=max_documents, seed=seed)
    qrels = {
        split: found.qrels.filter(pc.is_in(found.qrels["query_id"], pa.array(query_ids, pa.string())))
        for split, query_ids in found.splits.items()
    }
    return Splits("pydocs", found.corpus, found.queries, qrels)


@DATASETS.register("msmarco")
def msmarco(
    *,
    path: str | None = None,
    max_documents: int | None = None,
    max_queries: int | None = None,
    seed: int = 0,
) -> Splits:
    """MS MARCO passages (arXiv:1611.09268): 8.8 million, train queries, dev/small as dev, TREC DL 2019 as test."""
    ids = {
        "train": "msmarco-passage/train/judged",
        "dev": "msmarco-passage/dev/small",
        "test": "msmarco-passage/trec-dl-2019/judged",
    }
    return _fetched_or_copied(ids, path, max_documents, max_queries, seed)


@DATASETS.register("quora")
def quora(
    *,
    path: str | None = None,
    max_documents: int | None = None,
    max_queries: int | None = None,
    seed: int = 0,
) -> Splits:
    """Quora duplicate questions as BEIR cut them (arXiv:2104.08663): 523 thousand questions, dev and test."""
    ids = {"dev": "beir/quora/dev", "test": "beir/quora/test"}
    return _fetched_or_copied(ids, path, max_documents, max_queries, seed)


@DATASETS.register("trec-dl-2019")
def trec_dl_2019(*, path: str | None = None, max_documents: int | None = None, seed: int = 0) -> Splits:
    """TREC Deep Learning 2019 passages (arXiv:2003.07820): 43 queries judged from 0 to 3, test only."""
    return _fetched_or_copied({"test": "msmarco-passage/trec-dl-2019/judged"}, path, max_documents, None, seed)


@DATASETS.register("trec-dl-2020")
def trec_dl_2020(*, path: str | None = None, max_documents: int | None = None, seed: int = 0) -> Splits:
    """TREC Deep Learning 2020 passages (arXiv:2102.07662): 54 queries judged from 0 to 3, test only."""
    return _fetched_or_copied({"test": "msmarco-passage/trec-dl-2020/judged"}, path, max_documents, None, seed)


def _fetched_or_copied(
    ids: dict[str, str], path: str | None, max_documents: int | None, max_queries: int | None, seed: int
) -> Splits:
    if path is None:
        return read_ir_dataset(ids, max_documents=max_documents, max_queries=max_queries, seed=seed)
    return sample_splits(read_beir(path), max_documents, max_queries, seed)
