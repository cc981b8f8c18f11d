"""The stage ``train``: Ray Train runs the workers, restarts them when they are lost, and continues a killed run.

The groups reach the workers as one memory-mapped file and not as a Ray Data stream. A step's groups are a seeded
sample of the whole epoch and a function of the step's number alone; a stream can neither shuffle that widely nor
start in the middle, its position is not restored after a restart, and its tasks would need cores beside the workers'.
Reading by row gives all of that for no memory: the pages are shared by the workers of a machine.
"""

import json
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.train
from ray.train.torch import TorchTrainer

from ranker.config import Experiment, TrainConfig
from ranker.data.formats.example_files import read_examples
from ranker.manifest import MANIFEST, Done, StageError, fingerprint_path, read_manifest, run_stage, write_text
from ranker.pretrained import resolve
from ranker.schemas import GROUPS, read_table
from ranker.session import connected, worker_environment
from ranker.training.batches import write_group_file
from ranker.training.card import model_card
from ranker.training.engine import choose_for_device
from ranker.training.job import GROUP_FILE, OUTCOME, WEIGHTS, Job
from ranker.training.losses import check_loss
from ranker.training.measure import DEV_GROUPS, DEV_QRELS, has_dev
from ranker.training.model import check_model
from ranker.training.progress import LOG, LogFollower, TrainingError
from ranker.training.worker import STOPPED, train_worker

log = logging.getLogger(__name__)

GROUPS_NAME = "groups.parquet"
STORAGE, RUN = "ray", "run"
SECONDS_BETWEEN_LINES = 0.5


def fit(config: Experiment, callbacks: Sequence[ray.train.UserCallback] = ()) -> Done:
    """Fine-tune a cross-encoder on the mined groups and leave it as an ordinary model folder.

    The same call continues after a killed worker, a killed driver or a full stop, from the last checkpoint. The
    folder opens with ``CrossEncoder`` and ``AutoModelForSequenceClassification``.

    Args:
        config: the experiment; its section ``train`` and ``seed`` decide.
        callbacks: Ray Train's, for a caller that follows the reports (``step``, ``loss`` and the dev measures).

    Raises:
        StageError: where the groups are missing or not whole. ModelNotFoundError, PrecisionError, UnknownNameError,
            ValueError: on a config that cannot run. TrainingError: on a run that came to nothing.
    """
    train = config.train
    source = _groups_file(config)
    check_loss(train.loss, train.loss_options)
    check_model(train)
    if train.gpus_per_worker == 0:
        choose_for_device(train, "cpu")
    inputs = _inputs(source, train)
    identity = {name: value for name, value in train.identity().items() if name not in ("groups", "model")}

    def make(work: Path) -> Mapping[str, Any]:
        return _train(config, source, work, inputs, callbacks)

    return run_stage("train", config.folder("train"), {**identity, "seed": config.seed}, inputs, make)


def _groups_file(config: Experiment) -> Path:
    named = config.train.groups
    place = Path(named).expanduser().absolute() if named else config.folder("mine")
    if place.is_file() or (named and place.is_dir() and not (place / MANIFEST).exists()):
        return place
    if not place.exists() and named:
        raise StageError(
            f"train.groups {named!r}: no such file or folder; name a finished stage `mine`, Parquet of GROUPS, or "
            "training examples in a format that `ranker data inspect` knows"
        )
    read_manifest(place)
    return place / GROUPS_NAME


def _open_groups(source: Path) -> pa.Table:
    """GROUPS as they are, or made of training examples in another form."""
    files = sorted(source.glob("*.parquet")) if source.is_dir() else [source]
    parts = source.is_file() or all(file.name.startswith("part-") for file in files)  # otherwise they may be splits
    if files and parts and files[0].suffix == ".parquet" and set(GROUPS.names) <= set(pq.read_schema(files[0]).names):
        return read_table(source, GROUPS)
    return read_examples(source, split="train")


def _inputs(source: Path, train: TrainConfig) -> dict[str, str]:
    model = Path(resolve(train.model))
    inputs = {"groups": fingerprint_path(source), "model": fingerprint_path(model) if model.is_dir() else str(model)}
    if has_dev(source.parent):
        inputs |= {name: fingerprint_path(source.parent / name) for name in (DEV_GROUPS, DEV_QRELS)}
    return inputs


def _train(
    config: Experiment, source: Path, work: Path, inputs: Mapping[str, str], callbacks: Sequence[ray.train.UserCallback]
) -> Mapping[str, Any]:
    groups = _open_groups(source)
    if not groups.num_rows:
        raise StageError(f"{source}: holds no groups; mine from more queries")
    write_group_file(groups, work / GROUP_FILE)
    (work / STOPPED).unlink(missing_ok=True)
    # The workers change their folder, so that what was relative here would not be found there.
    train = config.train.model_copy(update={"model": resolve(config.train.model)})
    job = Job(train, config.seed, work, source.parent if has_dev(source.parent) else None)
    with connected(config.ray), _followed(work / LOG):
        _check_resources(train)
        _run_workers(job, callbacks)
    if (work / STOPPED).is_file():
        raise TrainingError(json.loads((work / STOPPED).read_text("utf-8"))["message"])
    outcome = {"backbone": config.train.model, **json.loads((work / OUTCOME).read_text("utf-8"))}
    write_text(work / WEIGHTS / "README.md", model_card(config, groups.num_rows, outcome, inputs))
    _tidy(work)
    return outcome


def _run_workers(job: Job, callbacks: Sequence[ray.train.UserCallback]) -> None:
    train = job.train
    resources = {"CPU": train.cpus_per_worker} | ({"GPU": train.gpus_per_worker} if train.gpus_per_worker else {})
    # Ray's stubs still describe the configs of Train v1.
    failure: dict[str, Any] = {"max_failures": train.max_failures, "controller_failure_limit": 3}
    run: dict[str, Any] = {
        # The same name in the same place continues the run that stopped there.
        "name": RUN,
        "storage_path": str(job.work / STORAGE),
        "failure_config": ray.train.FailureConfig(**failure),
        "checkpoint_config": ray.train.CheckpointConfig(num_to_keep=2),
        "callbacks": list(callbacks),
        "worker_runtime_env": {"env_vars": worker_environment()},
        "logging_config": ray.train.LoggingConfig(log_level="WARNING"),
    }
    scaling = ray.train.ScalingConfig(
        num_workers=train.num_workers, use_gpu=train.gpus_per_worker > 0, resources_per_worker=resources
    )
    trainer = TorchTrainer(
        train_worker, train_loop_config={"job": job}, scaling_config=scaling, run_config=ray.train.RunConfig(**run)
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise TrainingError(f"training failed after {train.max_failures} restarts: {error}") from error


def _check_resources(train: TrainConfig) -> None:
    have = ray.cluster_resources()
    for name, each in (("CPU", train.cpus_per_worker), ("GPU", train.gpus_per_worker)):
        if have.get(name, 0) < each * train.num_workers:
            log.warning(
                "%d workers need %g %s, the cluster has %g: waiting until nodes join it (or set train.num_workers)",
                train.num_workers, each * train.num_workers, name, have.get(name, 0),
            )  # fmt: skip


@contextmanager
def _followed(path: Path) -> Iterator[None]:
    """Tell the lines that the first worker writes, while the block runs."""
    follower = LogFollower(path, log.info)
    over = threading.Event()

    def follow() -> None:
        while not over.wait(SECONDS_BETWEEN_LINES):
            follower.poll()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        follower.poll()


def _tidy(work: Path) -> None:
    """Leave the model and its log, nothing of the run."""
    for file in (work / WEIGHTS).iterdir():
        file.replace(work / file.name)
    (work / WEIGHTS).rmdir()
    shutil.rmtree(work / STORAGE)
    (work / GROUP_FILE).unlink()
    (work / OUTCOME).unlink()
