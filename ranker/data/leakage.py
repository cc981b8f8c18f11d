"""What two splits of a data set share: a model that saw it in one has an easier time in the other."""

from itertools import combinations

import pyarrow as pa
import pyarrow.compute as pc

from ranker.data.splits import Splits


def shared_documents(data: Splits) -> dict[str, int]:
    """``{"train/test": n}``: documents that are relevant in both splits; pairs that share none are left out."""
    return _shared({split: relevant_ids(data, split) for split in data.qrels})


def shared_queries(data: Splits) -> dict[str, int]:
    """Queries with the same text, whatever their case and white space, that are judged in both splits."""
    texts = {}
    for split, table in data.qrels.items():
        asked = data.queries.filter(pc.is_in(data.queries["query_id"], table["query_id"].unique()))
        plain = pc.utf8_lower(pc.utf8_trim_whitespace(asked["text"]))
        texts[split] = pc.replace_substring_regex(plain, r"\s+", " ").unique()
    return _shared(texts)


def relevant_ids(data: Splits, split: str) -> pa.Array:
    """doc_ids that are relevant to a query of the split."""
    table = data.qrels[split]
    level = data.relevance_levels.get(split, 1)
    return table.filter(pc.greater_equal(table["relevance"], level))["doc_id"].unique()


def _shared(values: dict[str, pa.Array]) -> dict[str, int]:
    counts = {
        f"{one}/{other}": int(pc.sum(pc.is_in(values[one], values[other])).as_py() or 0)
        for one, other in combinations(values, 2)
    }
    return {pair: count for pair, count in counts.items() if count}
