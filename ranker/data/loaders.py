"""Data sets as a notebook asks for them: ``train, val, test = MSMARCODataLoader().load_and_split()``."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from ranker.data.catalog import load_splits
from ranker.data.splits import hold_out_missing
from ranker.schemas import QRELS, QUERIES, Collection


class DataLoader:
    """A source with its options; nothing is read before :meth:`load_and_split`.

    Args:
        source: as in the config, ``data.source``. seed: of held-out splits and of samples.
        options: keyword arguments of the source's own loader; None values are left out.
    """

    def __init__(self, source: str, *, seed: int = 13, **options: Any) -> None:
        self.source, self.seed = source, seed
        self.options = {name: value for name, value in options.items() if value is not None}

    def load_and_split(self) -> tuple[Collection, Collection, Collection]:
        """Train, dev and test collections over one corpus.

        Where the source has no dev or test split, each is a seeded tenth of its train queries. A source that is for
        measuring only gives an empty train collection.

        Raises:
            ranker.data.DataError: on files that are not what they should be, or a data set that cannot be fetched.
        """
        loaded, _ = hold_out_missing(load_splits(self.source, **{"seed": self.seed, **self.options}), self.seed)
        train, dev, test = (
            loaded.collection(split) if split in loaded.qrels else _empty(loaded.name, split, loaded.corpus)
            for split in ("train", "dev", "test")
        )
        return train, dev, test


def _empty(name: str, split: str, corpus: pa.Table) -> Collection:
    return Collection(name, split, corpus, QUERIES.empty_table(), QRELS.empty_table())


class MSMARCODataLoader(DataLoader):
    """MS MARCO passages: train queries, dev/small, and TREC DL 2019 as test.

    Args:
        path: a copy in BEIR layout. None: fetched by ir_datasets (1 GB) into its cache.
        max_documents, max_queries: a seeded sample that keeps every judged document. None: all.
        seed: of the sample.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        max_documents: int | None = None,
        max_queries: int | None = None,
        seed: int = 13,
    ) -> None:
        super().__init__("msmarco", seed=seed, path=path, max_documents=max_documents, max_queries=max_queries)


class QuoraDataLoader(DataLoader):
    """Quora duplicate questions, as BEIR cut them: dev and test; the arguments are those of MSMARCODataLoader."""

    def __init__(
        self,
        path: str | None = None,
        *,
        max_documents: int | None = None,
        max_queries: int | None = None,
        seed: int = 13,
    ) -> None:
        super().__init__("quora", seed=seed, path=path, max_documents=max_documents, max_queries=max_queries)


class TRECDLDataLoader(DataLoader):
    """TREC Deep Learning passages, for measuring only.

    Args:
        year: 2019 or 2020. path, max_documents, seed: see MSMARCODataLoader.
    """

    def __init__(
        self, year: int = 2019, path: str | None = None, *, max_documents: int | None = None, seed: int = 13
    ) -> None:
        if year not in (2019, 2020):
            raise ValueError(f"year {year}: TREC DL passages are there for 2019 and 2020")
        super().__init__(f"trec-dl-{year}", seed=seed, path=path, max_documents=max_documents)


class BEIRDataLoader(DataLoader):
    """A BEIR data set.

    Args:
        name_or_path: a name such as ``scifact``, fetched by ir_datasets, or the path of a folder or zip.
        max_documents, max_queries, seed: see MSMARCODataLoader.
    """

    def __init__(
        self,
        name_or_path: str,
        *,
        max_documents: int | None = None,
        max_queries: int | None = None,
        seed: int = 13,
    ) -> None:
        is_path = Path(name_or_path).expanduser().exists() or "/" in name_or_path or name_or_path.endswith(".zip")
        source = name_or_path if is_path else f"ir_datasets:beir/{name_or_path}"
        super().__init__(source, seed=seed, max_documents=max_documents, max_queries=max_queries)


class PydocsDataLoader(DataLoader):
    """Documentation of the installed Python packages; needs no network.

    Args:
        max_documents: stop after this many. None: all. seed: of the order of modules and the splits.
    """

    def __init__(self, max_documents: int | None = None, *, seed: int = 13) -> None:
        super().__init__("pydocs", seed=seed, max_documents=max_documents)


class CustomDataLoader(DataLoader):
    """Your own folder or zip in BEIR layout: corpus.jsonl, queries.jsonl, qrels/train.tsv.

    Args:
        path: of the folder or zip. max_documents, max_queries, seed: see MSMARCODataLoader.
    """

    def __init__(
        self,
        path: str,
        *,
        max_documents: int | None = None,
        max_queries: int | None = None,
        seed: int = 13,
    ) -> None:
        super().__init__(str(path), seed=seed, max_documents=max_documents, max_queries=max_queries)
