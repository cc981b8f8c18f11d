"""Collections as plain training examples, without a retriever."""

import logging
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ranker.config import RayConfig
from ranker.data.errors import DataError
from ranker.data.examples import groups_to_pairs
from ranker.data.grouping import Finish, group_texts, read_groups
from ranker.data.labels import Mixture, training_labels
from ranker.schemas import ID_TRIPLES, PAIRS, Collection

log = logging.getLogger(__name__)

Triple = tuple[str, str, str]


class DataPreprocessor:
    """Turns collections into training examples: groups, pairs, or (query, positive, negative) triples.

    Documents that are relevant to a query of a split that was held out of the collection never come into them, neither
    as positives nor as negatives.

    Args:
        seed: of the drawn negatives.
    """

    def __init__(self, *, seed: int = 13) -> None:
        self.seed = seed

    def create_triples(
        self, collection: Collection, num_negatives: int = 1, *, random_ratio: float = 0.0
    ) -> list[Triple]:
        """``num_negatives`` triples (query, positive, negative) for every relevant document.

        Negatives are the documents judged irrelevant, then those of the collection's own candidate run, then random
        ones of the corpus; never a relevant document of the query nor a copy of one. All of it is seeded. A
        collection that brings training triples of its own (MS MARCO's qidpidtriples) gives just those.

        Args:
            random_ratio: share of the negatives that is drawn at random even where hard ones are there.

        Raises:
            ranker.data.DataError: where no query has a relevant document, or ``num_negatives`` is below 1.
        """
        if collection.triples is not None:
            return _own_triples(collection, collection.triples)
        triples: list[Triple] = []
        groups = self.create_groups(collection, num_negatives, random_ratio=random_ratio)
        for row in groups.to_pylist():
            labelled = list(zip(row["documents"], row["labels"], strict=True))
            positives = [text for text, label in labelled if label > 0]
            negatives = [text for text, label in labelled if label <= 0]
            for start, positive in enumerate(positives):
                triples += [(row["query"], positive, negative) for negative in negatives[start :: len(positives)]]
        return triples

    def create_groups(self, collection: Collection, num_negatives: int = 7, *, random_ratio: float = 0.0) -> pa.Table:
        """EXAMPLES (GROUPS with ``doc_ids``) in memory, as :meth:`write_groups` writes them.

        Raises:
            ranker.data.DataError: as :meth:`write_groups`.
        """
        with tempfile.TemporaryDirectory(prefix="ranker-groups-") as folder:
            return read_groups(self.write_groups(collection, folder, num_negatives, random_ratio=random_ratio))

    def write_groups(
        self,
        collection: Collection,
        folder: str | Path,
        num_negatives: int = 7,
        *,
        random_ratio: float = 0.0,
        ray: RayConfig | None = None,
    ) -> list[Path]:
        """Parquet parts of EXAMPLES in ``folder``, which ``train.groups`` takes; neither corpus nor groups in memory.

        One group a query, in the order of the queries: its relevant documents with their grades, best first, then
        its negatives with the label 0, no text twice.

        Args:
            num_negatives: for every relevant document; see :meth:`create_triples` for their order.
            random_ratio: share of the negatives that is drawn at random even where hard ones are there.
            ray: cluster that is joined or started where there is much to do.

        Raises:
            ranker.data.DataError: where no query has a relevant document, or an argument cannot be.
        """
        labelled = training_labels(collection, Mixture(num_negatives, random_ratio, self.seed))
        finish = Finish(drop_copies=True, negatives_a_positive=num_negatives, both_sides=True)
        parts = group_texts(labelled, collection.queries, collection.documents, Path(folder), finish, ray)
        if not any(pq.read_metadata(part).num_rows for part in parts):
            raise DataError(f"{collection!r}: no query has a relevant document and another one beside it")
        return parts

    def create_pairs(
        self, collection: Collection, num_negatives: int = 1, *, random_ratio: float = 0.0
    ) -> list[tuple[str, str, float]]:
        """(query, document, label) of the groups that :meth:`create_groups` makes; graded labels stay.

        Raises:
            ranker.data.DataError: as :meth:`create_groups`.
        """
        pairs = groups_to_pairs(self.create_groups(collection, num_negatives, random_ratio=random_ratio))
        return list(zip(*(pairs[name].to_pylist() for name in PAIRS.names), strict=True))


def _own_triples(collection: Collection, given: pa.Table) -> list[Triple]:
    reserved = set(collection.reserved.to_pylist()) if collection.reserved is not None else set()
    columns = [given[name].to_pylist() for name in ID_TRIPLES.names]
    texts = collection.texts([*columns[1], *columns[2]])
    queries = dict(zip(collection.queries["query_id"].to_pylist(), collection.queries["text"].to_pylist(), strict=True))
    triples = []
    for query_id, positive, negative in zip(*columns, strict=True):
        known = query_id in queries and positive in texts and negative in texts
        if known and positive not in reserved and negative not in reserved:
            triples.append((queries[query_id], texts[positive], texts[negative]))
    lost = len(columns[0]) - len(triples)
    if lost:
        log.warning("%r: %d of %d triples name documents or queries that are held out or not there", collection, lost,
                    len(columns[0]))  # fmt: skip
    if not triples:
        raise DataError(f"{collection!r}: no triple names a query and documents that are there")
    return triples
