"""Every source of a collection by name, and the first stage: `prepare`.

A source is a name in DATASETS, ``ir_datasets:ID``, ``hf:ORG/NAME``, or the path of a folder, zip or file in a known
format (``ranker.data.source.FORMATS``).
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ranker.config import Experiment
from ranker.data.datasets import DATASETS
from ranker.data.errors import DataError
from ranker.data.identity import source_fingerprint
from ranker.data.leakage import shared_documents
from ranker.data.opening import open_source, opener_of
from ranker.data.splits import Splits, hold_out_missing, rename_splits
from ranker.data.store import Reading, store_source
from ranker.data.stored import open_collection, open_splits, save_beside_corpus, save_collection
from ranker.manifest import Done, fingerprint, run_stage
from ranker.schemas import SPLITS, Collection

__all__ = ["DATASETS", "load", "load_splits", "open_collection", "open_source", "prepare", "save_collection"]

log = logging.getLogger(__name__)

_READING = {field.name for field in fields(Reading)}


def load(source: str, split: str = "test", **options: Any) -> Collection:
    """One split of a source, with the whole corpus; ``options`` as of :func:`load_splits`.

    Raises:
        DataError: on an unknown source, option or split, or on files that are not what they should be.
    """
    return load_splits(source, **options).collection(split)


def load_splits(source: str, **options: Any) -> Splits:
    """All splits of a source, under the source's own names, read once into the cache; documents stay on the disk.

    The cache is ``$RANKER_HOME`` (else ``~/.cache/ranker``), a folder a source and version; it may be deleted. What
    was read before is found there at once.

    Args:
        source: see this module.
        options: those of :class:`ranker.data.store.Reading` (``max_documents``, ``allow_missing``, ...), and of the
            source itself (``format``, ``encoding``, ...).

    Raises:
        DataError: as :func:`load`.
    """
    opener, inputs = opener_of(source, options), {"source": source_fingerprint(source, options, quick=True)}

    def make(work: Path) -> dict[str, Any]:
        data = store_source(opener(), work, _reading(options))
        save_beside_corpus(work, data)
        return {"documents": data.corpus.num_rows}

    identity = {name: str(value) for name, value in options.items()}
    name = fingerprint({"source": source, "options": identity, **inputs})
    done = run_stage("load", cache_folder() / name, identity, inputs, make, wait=True)
    return open_splits(done.folder)


def cache_folder() -> Path:
    """Where sources are kept that were read.

    Raises:
        DataError: where nothing can be written there.
    """
    place = os.environ.get("RANKER_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "ranker"
    folder = Path(place).expanduser() / "data"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error}); name another place in RANKER_HOME") from error
    return folder


def prepare(config: Experiment) -> Done:
    """Stage `data`: read the source, hold out the splits that it lacks, and store it as Parquet.

    Raises:
        DataError: on anything wrong with the source; nothing is left that looks whole.
    """
    data = config.data
    opener = opener_of(data.source, data.options)

    def make(work: Path) -> dict[str, Any]:
        log.info("reading %s", data.source)
        given = {"train": data.train_split, "dev": data.dev_split, "test": data.test_split}
        names = {ours: theirs for ours, theirs in given.items() if theirs is not None}
        named = [split for split in names if f"{split}_split" in data.model_fields_set]

        def renamed(found: Splits) -> Splits:
            return rename_splits(found, names, [names[split] for split in named])

        reading = _reading({"seed": config.seed, **data.options})
        loaded = renamed(store_source(opener(config.seed), work, reading, config.ray, check=renamed))
        cut, held_out = hold_out_missing(loaded, config.seed)
        if held_out:
            log.warning("%s has no %s split; held out from train", data.source, " and no ".join(held_out))
        save_beside_corpus(work, cut)
        outcome = _counts(cut, held_out)
        queries = ", ".join(f"{split} {count}" for split, count in outcome["queries"].items())
        log.info("%s: %d documents, judged queries: %s", data.source, outcome["documents"], queries)
        return outcome

    identity = {**data.identity(), "seed": config.seed}
    inputs = {"source": source_fingerprint(data.source, data.options)}
    return run_stage("data", config.folder("data"), identity, inputs, make)


def _reading(options: Mapping[str, Any]) -> Reading:
    return Reading(**{name: options[name] for name in _READING & set(options)})


def _counts(data: Splits, held_out: list[str]) -> dict[str, Any]:
    return {
        "name": data.name,
        "documents": data.corpus.num_rows,
        "queries": {split: len(data.qrels[split]["query_id"].unique()) for split in SPLITS if split in data.qrels},
        "judgements": {split: data.qrels[split].num_rows for split in SPLITS if split in data.qrels},
        "held_out": held_out,
        "relevant_in_two_splits": shared_documents(data),
    }
