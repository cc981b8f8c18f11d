"""Data sets as a notebook asks for them: ``train, val, test = MSMARCODataLoader().load_and_split()``."""

from pathlib import Path
from typing import Any, Literal

from ranker.data.catalog import load_splits
from ranker.data.datasets import DATASETS
from ranker.data.splits import Splits, hold_out_missing, with_house_names
from ranker.schemas import QRELS, QUERIES, SPLITS, Collection


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

        Where the source has no dev or test split, each is a seeded tenth of its train queries, cut so that no document
        is relevant in two of them. A split by another usual name (``validation``, ``val``, ``testing``) is taken for
        its own. A source that is for measuring only gives an empty train collection. The documents stay on the disk
        (see :func:`ranker.data.load`).

        Raises:
            ranker.data.DataError: on files that are not what they should be, or a data set that cannot be fetched.
        """
        loaded = with_house_names(load_splits(self.source, **{"seed": self.seed, **self.options}))
        loaded, _ = hold_out_missing(loaded, self.seed)
        train, dev, test = (
            loaded.collection(split) if split in loaded.names else _empty(loaded, split) for split in SPLITS
        )
        return train, dev, test


def _absolute(path: str | Path) -> str:
    """A path that no name of a data set is mistaken for."""
    return str(Path(path).expanduser().absolute())


def _empty(data: Splits, split: str) -> Collection:
    return Collection(data.name, split, data.corpus, QUERIES.empty_table(), QRELS.empty_table())


class MSMARCODataLoader(DataLoader):
    """MS MARCO passages: train queries, dev/small, and TREC DL 2019 as test.

    Args:
        path: a copy: the files that MS MARCO publishes, or any other known format. None: fetched by ir_datasets (1 GB)
            into its cache.
        max_documents, max_queries: a seeded sample that keeps every judged document. None: all.
        max_triples: of the official training triples, the first so many; ``DataPreprocessor.create_triples`` gives just
            those then.
        allow_missing: keep judgements of documents that are not there. seed: of the sample.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        max_documents: int | None = None,
        max_queries: int | None = None,
        max_triples: int | None = None,
        allow_missing: bool | None = None,
        seed: int = 13,
    ) -> None:
        super().__init__(
            "msmarco",
            seed=seed,
            path=path,
            max_documents=max_documents,
            max_queries=max_queries,
            max_triples=max_triples,
            allow_missing=allow_missing,
        )


class QuoraDataLoader(DataLoader):
    """Quora duplicate questions: as BEIR cut them (dev and test), or the labelled pairs that Quora published.

    Args:
        path: a copy in any known format. form: ``retrieval`` or ``pairs``.
            None: what the copy is; fetched, retrieval.
        max_documents, max_queries, allow_missing, seed: see MSMARCODataLoader.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        form: Literal["retrieval", "pairs"] | None = None,
        max_documents: int | None = None,
        max_queries: int | None = None,
        allow_missing: bool | None = None,
        seed: int = 13,
    ) -> None:
        super().__init__(
            "quora",
            seed=seed,
            path=path,
            form=form,
            max_documents=max_documents,
            max_queries=max_queries,
            allow_missing=allow_missing,
        )


class TRECDLDataLoader(DataLoader):
    """TREC Deep Learning passages, for measuring only; binary measures count judgements of 2 and above.

    Args:
        year: 2019 to 2022. path, max_documents, allow_missing, seed: see MSMARCODataLoader.
    """

    def __init__(
        self,
        year: int = 2019,
        path: str | None = None,
        *,
        max_documents: int | None = None,
        allow_missing: bool | None = None,
        seed: int = 13,
    ) -> None:
        years = sorted(int(name.rpartition("-")[2]) for name in DATASETS if name.startswith("trec-dl-"))
        if year not in years:
            raise ValueError(f"year {year}: TREC DL passages are there for {years[0]} to {years[-1]}")
        super().__init__(
            f"trec-dl-{year}", seed=seed, path=path, max_documents=max_documents, allow_missing=allow_missing
        )


class BEIRDataLoader(DataLoader):
    """A BEIR data set.

    Args:
        name_or_path: a name such as ``scifact`` or ``cqadupstack/android``, or the path of a folder or zip; what
            exists as a path is one.
        max_documents, max_queries, allow_missing, seed: see MSMARCODataLoader.
    """

    def __init__(
        self,
        name_or_path: str | Path,
        *,
        max_documents: int | None = None,
        max_queries: int | None = None,
        allow_missing: bool | None = None,
        seed: int = 13,
    ) -> None:
        named = str(name_or_path).removeprefix("beir/")
        source = f"beir/{named}" if f"beir/{named}" in DATASETS else str(name_or_path)
        if Path(name_or_path).expanduser().exists():
            source = _absolute(name_or_path)
        super().__init__(
            source, seed=seed, max_documents=max_documents, max_queries=max_queries, allow_missing=allow_missing
        )


class PydocsDataLoader(DataLoader):
    """Documentation of the installed Python packages; needs no network.

    Args:
        max_documents: stop after this many. None: all. seed: of the order of modules and the splits.
    """

    def __init__(self, max_documents: int | None = None, *, seed: int = 13) -> None:
        super().__init__("pydocs", seed=seed, max_documents=max_documents)


class CustomDataLoader(DataLoader):
    """Your own data: a folder, zip or file in BEIR, TREC or MS MARCO layout, Parquet, or training examples.

    Args:
        path: of the folder, zip or file. format: None: seen from the files.
        encoding: a codec of Python's; None: UTF-8. max_documents, max_queries, allow_missing, seed: see
            MSMARCODataLoader. options: of the format, such as ``columns={"query": "question"}``.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        format: str | None = None,
        encoding: str | None = None,
        max_documents: int | None = None,
        max_queries: int | None = None,
        allow_missing: bool | None = None,
        seed: int = 13,
        **options: Any,
    ) -> None:
        super().__init__(
            _absolute(path),
            seed=seed,
            format=format,
            encoding=encoding,
            max_documents=max_documents,
            max_queries=max_queries,
            allow_missing=allow_missing,
            **options,
        )
