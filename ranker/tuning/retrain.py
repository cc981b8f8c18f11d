"""The door `retrain`: the recipe of the best trial of a sweep, or of the best model below a folder, on all data.

Settings were chosen on dev and told on test; what is left to do with those queries is to learn from them.
"""

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ranker.config import Experiment
from ranker.data.splits import Splits
from ranker.data.stored import open_splits, save_beside_corpus, stored_splits
from ranker.manifest import MANIFEST, Done, StageError, fingerprint_path, read_manifest, run_stage, write_text
from ranker.retrieval.embed import embeddings_folder
from ranker.schemas import GROUPS
from ranker.session import one_cluster
from ranker.training.measure import DEV_GROUPS
from ranker.tuning.chosen import Chosen, choose
from ranker.tuning.recipe import absolute, groups_folder, make_model

log = logging.getLogger(__name__)

FOLDER, TRAIN, TEST = "retrained", "train", "test"


def retrain(config: Experiment, source: Path | None = None, *, keep_test: bool = False) -> Done:
    """A model in ``retrained/model`` of the experiment's folder, trained on the queries of all splits.

    Nothing is left to measure it on, so it trains as long as the chosen model did: where that took the weights of its
    best measurement, as many of the steps as led there.

    Args:
        config: whose data, new or larger since then, are learnt from.
        source: a sweep's folder, its best.yaml, a model folder, or a folder of models of which the best on dev is
            taken. None: the experiment's sweep.
        keep_test: leave the test queries out, so that `evaluate` can measure the model.

    Raises:
        StageError: where nothing was found to take the recipe from, or there is nothing to learn from.
    """
    chosen = choose(source or config.folder("tune"), config)
    log.info("retraining %s", chosen.told)
    base = absolute(config)
    folder = Path(base.output_dir) / FOLDER
    with one_cluster():
        return _train(_with_all_data(base, chosen, folder, keep_test), chosen, folder)


def _train(base: Experiment, chosen: Chosen, folder: Path) -> Done:
    recipe = chosen.settled(base)
    inputs = {"groups": fingerprint_path(groups_folder(base)), "source": chosen.key}
    identity = {**recipe.plain(), "train": base.train.identity(), "seed": base.seed}

    def make(work: Path) -> Mapping[str, Any]:
        from ranker.training.trainer import fit

        last = make_model(base, recipe, work, fit, work / "mined")
        trained = read_manifest(work / "model")
        for file in (work / "model").iterdir():
            if file.name != MANIFEST:
                file.replace(work / file.name)
        for part in (work / "model", *work.glob("part-*"), work / "mined"):
            shutil.rmtree(part, ignore_errors=True)
        write_text(work / "experiment.yaml", last.to_yaml())
        return {**trained.outcome, "backbone": base.train.model, "recipe": chosen.told}

    return run_stage("train", folder / "model", identity, inputs, make)


def _with_all_data(base: Experiment, chosen: Chosen, folder: Path, keep_test: bool) -> Experiment:
    """The experiment with groups of all queries, mined where there are data to mine from."""
    base = base.with_overrides(chosen.mining)
    if base.train.groups is not None:
        return base.with_overrides({"train.groups": str(_joined_groups(base, folder))})
    return _mined(base, folder, keep_test)


def _joined_groups(base: Experiment, folder: Path) -> Path:
    """Named groups and the dev groups beside them, which were held out until now."""
    source = groups_folder(base)
    dev = source / DEV_GROUPS

    def make(work: Path) -> Mapping[str, Any]:
        tables = [pq.read_table(file, columns=GROUPS.names).cast(GROUPS) for file in (source / "groups.parquet", dev)
                  if file.is_file()]  # fmt: skip
        if not tables:
            raise StageError(f"{source}: holds no groups.parquet; name a folder that does (train.groups)")
        pq.write_table(pa.concat_tables(tables), work / "groups.parquet")
        return {"groups": sum(table.num_rows for table in tables)}

    return run_stage("mine", folder / "mine", {}, {"groups": fingerprint_path(source)}, make).folder


def _mined(base: Experiment, folder: Path, keep_test: bool) -> Experiment:
    """Data with all queries under train, the old embeddings, an index and negatives of their own."""
    from ranker.retrieval.index import build_index
    from ranker.training.mining import mine

    read_manifest(base.folder("data"))
    splits = [split for split in stored_splits(base.folder("data")) if not (keep_test and split == TEST)]
    _write_data(base.folder("data"), folder / "data", splits)
    embeddings = folder / "embeddings"
    _link_tree(embeddings_folder(base), embeddings)
    changed = base.with_overrides({
        "data.output_dir": str(folder / "data"), "index.output_dir": str(folder / "index"),
        "index.embeddings_dir": str(embeddings), "mine.output_dir": str(folder / "mine"), "mine.max_queries": None,
        "mine.num_dev_queries": 0,
    })  # fmt: skip
    build_index(changed)
    mine(changed)
    return changed


def _write_data(source: Path, target: Path, splits: list[str]) -> None:
    """The stored collection with the judgements of these splits under train; what is kept for test stays there."""

    def make(work: Path) -> Mapping[str, Any]:
        stored = open_splits(source)
        tables = [stored.qrels[split] for split in splits if split in stored.qrels]
        if not tables:
            raise StageError(f"{source}: no judged queries to learn from")
        qrels = {TRAIN: _unique(pa.concat_tables(tables))}
        if TEST in stored.qrels and TEST not in splits:
            qrels[TEST] = stored.qrels[TEST]
        _link_tree(source / "corpus", work / "corpus")
        levels = {TRAIN: max(stored.relevance_levels.get(split, 1) for split in splits)}
        levels[TEST] = stored.relevance_levels.get(TEST, 1)
        whole = Splits(stored.name, stored.corpus, stored.queries, qrels, stored.run, relevance_levels=levels)
        save_beside_corpus(work, whole)
        return {"splits": splits, "queries": len(pc.unique(qrels[TRAIN]["query_id"]))}

    run_stage("data", target, {"splits": splits}, {"data": read_manifest(source).key}, make)


def _unique(qrels: pa.Table) -> pa.Table:
    """One judgement a query and document, the highest: splits may share some."""
    found = qrels.group_by(["query_id", "doc_id"], use_threads=False).aggregate([("relevance", "max")])
    return found.rename_columns(["query_id", "doc_id", "relevance"]).select(qrels.column_names).cast(qrels.schema)


def _link_tree(source: Path, target: Path) -> None:
    """The files again under another name, as links where the disk has them; once, and whole or not at all."""
    if target.exists():
        return
    temporary = target.with_name(f".{target.name}.copy")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, temporary, copy_function=_link)
    temporary.rename(target)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
