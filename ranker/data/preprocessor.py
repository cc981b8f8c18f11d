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
from ranker.data.labels import Barred, Mixture, training_labels, why_no_labels
from ranker.schemas import ID_TRIPLES, PAIRS, Collection

log = logging.getLogger(__name__)

Triple = tuple[str, str, str]


class DataPreprocessor:
    """Turns collections into training examples: groups, pairs, or (query, positive, negative) triples.

    Documents that are relevant to a query of a split that was held out of the collection never come into them, neither
    as positives nor as negatives, and neither do documents with the text of such a one.

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
            ranker.data.DataError: where no query has a relevant document, or ``num_negatives`` is below 1, or the
                collection brings triples and a number or ratio of negatives is asked for.
        """
        if collection.triples is not None and collection.triples.num_rows:
            if (num_negatives, random_ratio) != (1, 0.0):
                raise DataError(
                    f"{collection!r} brings {collection.triples.num_rows} training triples of its own, so "
                    f"num_negatives {num_negatives} and random_ratio {random_ratio} would not be heeded; leave them "
                    "out, or load without triples (max_triples=0)"
                )
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
            mixture = Mixture(num_negatives, random_ratio, self.seed)
            return read_groups(self._write(collection, folder, mixture, None, shared=False))

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
        return self._write(collection, folder, Mixture(num_negatives, random_ratio, self.seed), ray)

    def _write(
        self, collection: Collection, folder: str | Path, mixture: Mixture, ray: RayConfig | None, shared: bool = True
    ) -> list[Path]:
        labelled = training_labels(collection, mixture)
        finish = Finish(drop_copies=True, negatives_a_positive=mixture.num_negatives, both_sides=True)
        parts = group_texts(
            labelled, collection.queries, collection.documents, Path(folder), finish, ray, shared=shared
        )
        if not any(pq.read_metadata(part).num_rows for part in parts):
            raise DataError(
                f"{collection!r}: no query has a relevant document and another one beside it: "
                f"{why_no_labels(collection)}"
            )
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
    barred = Barred.of(collection)
    columns = [given[name].to_pylist() for name in ID_TRIPLES.names]
    texts = collection.texts([*columns[1], *columns[2]])
    queries = dict(zip(collection.queries["query_id"].to_pylist(), collection.queries["text"].to_pylist(), strict=True))
    triples, lost = [], {"a query": 0, "a document": 0, "reserved": 0}
    for query_id, positive, negative in zip(*columns, strict=True):
        if query_id not in queries:
            lost["a query"] += 1
        elif positive not in texts or negative not in texts:
            lost["a document"] += 1
        elif positive in barred.reserved or negative in barred.reserved:
            lost["reserved"] += 1
        else:
            triples.append((queries[query_id], texts[positive], texts[negative]))
    reasons = (
        f"{lost['a query']} name a query and {lost['a document']} a document that is not there, "
        f"{lost['reserved']} a document that answers a query of another split"
    )
    if not triples:
        raise DataError(
            f"{collection!r}: none of its {len(columns[0])} triples can be used: {reasons}; add what they name, give "
            "the data set splits that share no document, or load without triples (max_triples=0)"
        )
    if any(lost.values()):
        log.warning("%r: of its %d triples %s; they are left out", collection, len(columns[0]), reasons)
    return triples
