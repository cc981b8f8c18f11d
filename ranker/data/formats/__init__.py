"""Files of the field, read and written: BEIR, TREC, MS MARCO, Parquet, and training examples of other projects."""

from ranker.data.errors import DataError
from ranker.data.formats.beir import read_beir
from ranker.data.formats.trec import read_trec_qrels, read_trec_run, write_trec_qrels, write_trec_run

__all__ = [
    "DataError",
    "read_beir",
    "read_trec_qrels",
    "read_trec_run",
    "write_trec_qrels",
    "write_trec_run",
]
