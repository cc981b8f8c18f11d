"""The table types that flow between stages, and the check that stands at every door.

Column names are those of ir-measures and ir_datasets, so nothing is renamed at a boundary.
"""

from ranker.schemas.collection import Collection
from ranker.schemas.corpus import BLOCK_ROWS, Corpus, StoredCorpus, TableCorpus, read_blocks
from ranker.schemas.ranked import RankedDocument
from ranker.schemas.tables import (
    CORPUS,
    EXAMPLES,
    GROUPS,
    ID_TRIPLES,
    PAIRS,
    QRELS,
    QUERIES,
    RUN,
    SPLITS,
    TRIPLES,
    SchemaError,
    document_texts,
    read_table,
    require,
)

__all__ = [
    "BLOCK_ROWS",
    "CORPUS",
    "EXAMPLES",
    "GROUPS",
    "ID_TRIPLES",
    "PAIRS",
    "QRELS",
    "QUERIES",
    "RUN",
    "SPLITS",
    "TRIPLES",
    "Collection",
    "Corpus",
    "RankedDocument",
    "SchemaError",
    "StoredCorpus",
    "TableCorpus",
    "document_texts",
    "read_blocks",
    "read_table",
    "require",
]
