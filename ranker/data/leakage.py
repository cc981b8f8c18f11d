"""What two splits of a data set share: a model that saw it in one has an easier time in the other."""

from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ranker.data.parts import Hashes, hash_ids
from ranker.data.splits import Splits, folded
from ranker.schemas import Corpus, document_texts


def shared_documents(data: Splits) -> dict[str, int]:
    """``{"train/test": n}``: documents that are relevant in both splits; pairs that share none are left out."""
    return _shared({split: data.relevant_ids(split) for split in data.qrels})


def shared_queries(data: Splits) -> dict[str, int]:
    """Queries with the same text, whatever their case and white space, that are judged in both splits."""
    texts = {}
    for split, table in data.qrels.items():
        asked = data.queries.filter(pc.is_in(data.queries["query_id"], table["query_id"].unique()))
        texts[split] = folded(asked["text"]).unique()
    return _shared(texts)


def with_copies(corpus: Corpus, doc_ids: pa.Array) -> pa.Array:
    """The doc_ids, and those of all documents with the text of one of them; two passes over the corpus.

    Of the texts no more than a block and 8 bytes for each of the ``doc_ids`` are in memory.
    """
    wanted = [
        _hashed_texts(some)
        for block in corpus.blocks()
        if (some := block.filter(pc.is_in(block["doc_id"], doc_ids))).num_rows
    ]
    if not wanted:
        return doc_ids
    texts = np.unique(np.concatenate(wanted))
    found = [doc_ids]
    for block in corpus.blocks():
        hashes = _hashed_texts(block)
        places = np.searchsorted(texts, hashes).clip(max=len(texts) - 1)
        found += block["doc_id"].filter(pa.array(texts[places] == hashes)).chunks
    return pa.chunked_array(found, pa.string()).unique()


def _hashed_texts(documents: pa.Table) -> Hashes:
    return hash_ids(pa.array(document_texts(documents), pa.string()))


def _shared(values: dict[str, pa.Array]) -> dict[str, int]:
    counts = {
        f"{one}/{other}": int(pc.sum(pc.is_in(values[one], values[other])).as_py() or 0)
        for one, other in combinations(values, 2)
    }
    return {pair: count for pair, count in counts.items() if count}
