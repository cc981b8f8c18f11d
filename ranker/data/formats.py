"""Files of the field, read and written: BEIR and TREC."""

from ranker.data.beir import read_beir, write_beir
from ranker.data.errors import DataError
from ranker.data.trec import read_trec_qrels, read_trec_run, write_trec_qrels, write_trec_run

__all__ = [
    "DataError",
    "read_beir",
    "read_trec_qrels",
    "read_trec_run",
    "write_beir",
    "write_trec_qrels",
    "write_trec_run",
]
