"""The DATASETS registry: one function a data set, keyword arguments are its options.

An entry returns a :class:`ranker.data.source.Source`, which reads nothing yet. Each of those that are FETCHED also
takes ``path``, a copy in any known format, for machines that cannot fetch them (:mod:`ranker.data.copies`).
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from ranker.data.errors import DataError
from ranker.data.ir_sets import open_ir_dataset
from ranker.data.pieces import TablePiece
from ranker.data.source import ExampleSource, Source
from ranker.registry import Registry

DATASETS: Registry[Callable[..., Source | ExampleSource]] = Registry("data set")

# https://github.com/beir-cellar/beir ; those that ir_datasets fetches under beir/.
CQADUPSTACK = (
    "android", "english", "gaming", "gis", "mathematica", "physics", "programmers", "stats", "tex", "unix",
    "webmasters", "wordpress",
)  # fmt: skip
BEIR = (
    "arguana", "climate-fever", "dbpedia-entity", "fever", "fiqa", "hotpotqa", "msmarco", "nfcorpus", "nq", "quora",
    "scidocs", "scifact", "trec-covid", "webis-touche2020", "webis-touche2020/v2",
    *(f"cqadupstack/{name}" for name in CQADUPSTACK),
)  # fmt: skip
# Their texts may not be given away: each has to be asked for, and then read from where it lies.
BEIR_BY_AGREEMENT = {
    "bioasq": "ask for it at http://participants-area.bioasq.org",
    "signal1m": "ask for it at https://research.signal-ai.com/datasets/signal1m-tweetir.html",
    "trec-news": "ask NIST for the Washington Post collection, then data.source ir_datasets:wapo/v2/trec-news-2019",
    "robust04": "ask NIST for TREC disks 4 and 5, then data.source ir_datasets:disks45/nocr/trec-robust-2004",
}


@DATASETS.register("pydocs")
def pydocs(*, max_documents: int | None = None, roots: list[str] | None = None, seed: int = 0) -> Source:
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
    return Source(
        "pydocs", "pydocs", [TablePiece(found.corpus)], lambda mistakes: found.queries, lambda mistakes: qrels
    )


@DATASETS.register("msmarco")
def msmarco(*, max_triples: int = 0, candidates: bool = True) -> Source | ExampleSource:
    """MS MARCO passages (arXiv:1611.09268): 8.8 million, train queries, dev/small as dev, TREC DL 2019 as test.

    Args:
        max_triples: of the official training triples (qidpidtriples), the first so many.
        candidates: also read the official top 1000 of dev and test.
    """
    ids = {
        "train": "msmarco-passage/train/judged",
        "dev": "msmarco-passage/dev/small",
        "test": "msmarco-passage/trec-dl-2019/judged",
    }
    return open_ir_dataset(ids, max_triples=max_triples, candidates=candidates)


@DATASETS.register("quora")
def quora(*, form: Literal["retrieval", "pairs"] = "retrieval") -> Source | ExampleSource:
    """Quora duplicate questions as BEIR cut them (arXiv:2104.08663): 523 thousand questions, dev and test.

    Args:
        form: pairs are the 404 thousand labelled pairs of questions that Quora published, as a hub data set keeps them.
    """
    if form == "pairs":
        from ranker.data.formats.hub import open_hub

        return open_hub("sentence-transformers/quora-duplicates", config="pair-class")
    return open_ir_dataset({"dev": "beir/quora/dev", "test": "beir/quora/test"})


def _trec_dl(year: int, passages: str) -> None:
    def trec_dl(*, candidates: bool = True) -> Source | ExampleSource:
        return open_ir_dataset({"test": f"{passages}/trec-dl-{year}/judged"}, candidates=candidates)

    trec_dl.__doc__ = f"""TREC Deep Learning {year} passages: queries judged from 0 to 3, test only.

    Args:
        candidates: also read the official candidates.
    """
    DATASETS.register(f"trec-dl-{year}")(trec_dl)


for _year in (2019, 2020):
    _trec_dl(_year, "msmarco-passage")
for _year in (2021, 2022):
    _trec_dl(_year, "msmarco-passage-v2")


def _beir(name: str, fetch: Callable[[], Source]) -> None:
    def beir() -> Source | ExampleSource:
        return fetch()

    beir.__doc__ = f"""BEIR's {name} (arXiv:2104.08663)."""
    DATASETS.register(f"beir/{name}")(beir)


def _by_agreement(name: str, how: str) -> Source:
    raise DataError(
        f"beir/{name}: its texts may not be given away, so nothing can fetch it; {how}, or name a copy in BEIR layout "
        "with data.options.path"
    )


for _name in BEIR:
    _beir(_name, partial(open_ir_dataset, f"beir/{_name}"))
for _name, _how in BEIR_BY_AGREEMENT.items():
    _beir(_name, partial(_by_agreement, _name, _how))

FETCHED = frozenset(DATASETS) - {"pydocs"}
