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
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
# A worker that reports, and a run that has ended, wait until the controller looks; Ray's own is every two seconds.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import ray
import ray.train

from ranker.config import Experiment, TrainConfig
from ranker.data.formats.example_files import read_examples
from ranker.manifest import MANIFEST, WORK_KEY, Done, StageError, fingerprint_path, read_manifest, run_stage, write_text
from ranker.pretrained import resolve
from ranker.schemas import GROUPS, read_table
from ranker.session import connected, worker_environment
from ranker.training.batches import SCORES, whole_groups, write_group_file
from ranker.training.card import model_card
from ranker.training.engine import choose_for_device
from ranker.training.general import GENERAL, mix_groups
from ranker.training.job import GROUP_FILE, KEPT, OUTCOME, RESERVED, UNIVERSAL, WEIGHTS, Job
from ranker.training.measure import DEV_GROUPS, DEV_QRELS, has_dev
from ranker.training.model import check_model
from ranker.training.objective import check_objective, needs_scores
from ranker.training.order import parts_of
from ranker.training.progress import LOG, LogFollower, TrainingError, describe, repeatedly
from ranker.training.tracking import check_trackers, trackers
from ranker.training.worker import STOPPED, Trainer, train_worker

log = logging.getLogger(__name__)

GROUPS_NAME = "groups.parquet"
STORAGE, RUN, TRACKED = "ray", "run", "tracking"
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
    check_objective(train)
    check_model(train)
    check_trackers(train.track)
    if train.gpus_per_worker == 0:
        choose_for_device(train, "cpu")
    # After the checks, since a mix by name may have to be mined first.
    mixes = [
        _named_groups(mix_groups(mix.groups, config), f"train.mix.{number}.groups")
        for number, mix in enumerate(train.mix)
    ]
    inputs = _inputs([source, *mixes], train)
    identity = {name: value for name, value in train.identity().items() if name not in ("groups", "model", "mix")}
    identity["mix"] = [mix.share for mix in train.mix]

    def make(work: Path) -> Mapping[str, Any]:
        return _train(config, [source, *mixes], work, inputs, callbacks)

    return run_stage("train", config.folder("train"), {**identity, "seed": config.seed}, inputs, make)


def _groups_file(config: Experiment) -> Path:
    if config.train.groups:
        return _named_groups(config.train.groups, "train.groups")
    read_manifest(config.folder("mine"))
    return config.folder("mine") / GROUPS_NAME


def _named_groups(name: str, field: str) -> Path:
    place = Path(name).expanduser().absolute()
    if (place / GROUPS_NAME).is_file() and not (place / MANIFEST).exists():
        return place / GROUPS_NAME  # what another hand has laid out as a stage would
    if place.is_file() or (place.is_dir() and not (place / MANIFEST).exists()):
        return place
    if not place.exists():
        raise StageError(
            f"{field} {name!r}: no such file or folder; name a finished stage `mine`, Parquet of GROUPS, or "
            "training examples in a format that `ranker data inspect` knows"
            + (f"; a mix may also name general text: {', '.join(GENERAL)}" if ".mix." in field else "")
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


def _inputs(sources: Sequence[Path], train: TrainConfig) -> dict[str, str]:
    model = Path(resolve(train.model))
    inputs = {"model": fingerprint_path(model) if model.is_dir() else str(model)}
    for prefix, source in zip(_names(sources), sources, strict=True):
        inputs[f"{prefix}groups"] = fingerprint_path(source)
        if has_dev(source.parent):
            inputs |= {f"{prefix}{name}": fingerprint_path(source.parent / name) for name in (DEV_GROUPS, DEV_QRELS)}
    return inputs


def _names(sources: Sequence[Path]) -> list[str]:
    """What the sources' inputs are called: the first as ever, then those of each mix."""
    return [f"mix{number}/" if number else "" for number in range(len(sources))]


def _train(
    config: Experiment,
    sources: Sequence[Path],
    work: Path,
    inputs: Mapping[str, str],
    callbacks: Sequence[ray.train.UserCallback],
) -> Mapping[str, Any]:
    counts = _write_groups(sources, config.train, work / GROUP_FILE)
    (work / STOPPED).unlink(missing_ok=True)
    # The workers change their folder, so that what was relative here would not be found there.
    train = config.train.model_copy(update={"model": resolve(config.train.model)})
    parts_of(counts, [mix.share for mix in train.mix], train.batch_size)
    dev = {
        name.rstrip("/"): source.parent
        for name, source in zip(_names(sources), sources, strict=True)
        if has_dev(source.parent)
    }
    if train.patience and not dev:
        raise StageError(
            f"{sources[0]}: no dev queries lie beside the groups, so that train.patience has nothing to measure; set "
            "mine.num_dev_queries above 0 and mine again, or leave train.patience out"
        )
    job, place = Job(train, config.seed, work, tuple(counts), dev), run_place(train, config.name, work)
    followed = trackers(train.track, work / TRACKED, config.name, config.train.model_dump(mode="json"))
    with connected(config.ray), followed as track:
        with _followed(work / LOG, track):
            _check_resources(train)
            _run_workers(job, place, callbacks)
        if (work / STOPPED).is_file():  # inside, so that the trackers show a run that failed
            raise TrainingError(json.loads((work / STOPPED).read_text("utf-8"))["message"])
    outcome = {"backbone": config.train.model, **json.loads((work / OUTCOME).read_text("utf-8"))}
    write_text(work / WEIGHTS / "README.md", model_card(config, counts, outcome, inputs))
    _tidy(work, place)
    return outcome


def _write_groups(sources: Sequence[Path], train: TrainConfig, path: Path) -> list[int]:
    """All sources in one file; how many groups each has."""
    tables = []
    for source in sources:
        groups = whole_groups(_open_groups(source), str(source))
        if not groups.num_rows:
            raise StageError(f"{source}: holds no groups; mine from more queries")
        tables.append(groups)
    if needs_scores(train) and not any(t[SCORES].null_count < t.num_rows for t in tables):
        raise StageError(
            f"{sources[0]}: its groups carry no scores, which train.target 'scores' and train.distill need; mine "
            "again, with a teacher (mine.teacher.model) or without"
        )
    write_group_file(pa.concat_tables(tables), path)
    return [table.num_rows for table in tables]


@dataclass(frozen=True)
class RunPlace:
    """Where Ray Train keeps a run: ``storage`` (a folder or a URI) / ``name``."""

    storage: str
    name: str

    def remove(self) -> None:
        """Delete what is left of a run that is over."""
        if "://" not in self.storage:
            shutil.rmtree(Path(self.storage) / self.name, ignore_errors=True)
            return
        # The name goes to the path and not to the URI, which may end in a query (`?endpoint_override=...`).
        filesystem, path = pyarrow.fs.FileSystem.from_uri(self.storage)
        filesystem.delete_dir(f"{path.rstrip('/')}/{self.name}")


def run_place(train: TrainConfig, name: str, work: Path) -> RunPlace:
    """Where the checkpoints of this run lie; the same for a run that is continued."""
    if train.storage is None:
        return RunPlace(str(work / STORAGE), RUN)
    storage = train.storage if "://" in train.storage else str(Path(train.storage).expanduser().absolute())
    return RunPlace(storage, f"{name}-{(work / WORK_KEY).read_text('utf-8').strip()}")


def _run_workers(job: Job, place: RunPlace, callbacks: Sequence[ray.train.UserCallback]) -> None:
    train = job.train
    resources = {"CPU": train.cpus_per_worker} | ({"GPU": train.gpus_per_worker} if train.gpus_per_worker else {})
    # Ray's stubs still describe the configs of Train v1.
    failure: dict[str, Any] = {"max_failures": train.max_failures, "controller_failure_limit": 3}
    run: dict[str, Any] = {
        # The same name in the same place continues the run that stopped there.
        "name": place.name,
        "storage_path": place.storage,
        "failure_config": ray.train.FailureConfig(**failure),
        "checkpoint_config": ray.train.CheckpointConfig(num_to_keep=2),
        "callbacks": list(callbacks),
        "worker_runtime_env": {"env_vars": worker_environment()},
        "logging_config": ray.train.LoggingConfig(log_level="WARNING"),
    }
    scaling: dict[str, Any] = {
        "num_workers": train.num_workers,
        "use_gpu": train.gpus_per_worker > 0,
        "resources_per_worker": resources,
        "placement_strategy": train.placement,
    }
    trainer = Trainer(
        train_worker,
        train_loop_config={"job": job},
        scaling_config=ray.train.ScalingConfig(**scaling),
        run_config=ray.train.RunConfig(**run),
    )
    interrupted = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise TrainingError(f"training failed after {train.max_failures} restarts: {error}") from error
    finally:
        # Ray's own handler stays otherwise, and with it the controller of a run that is over.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, interrupted)


def _check_resources(train: TrainConfig) -> None:
    have = ray.cluster_resources()
    for name, each in (("CPU", train.cpus_per_worker), ("GPU", train.gpus_per_worker)):
        if have.get(name, 0) < each * train.fewest_workers:
            log.warning(
                "%d workers need %g %s, the cluster has %g: waiting until nodes join it (or set train.num_workers)",
                train.fewest_workers, each * train.fewest_workers, name, have.get(name, 0),
            )  # fmt: skip


@contextmanager
def _followed(path: Path, track: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Tell the lines that the first worker writes, and track their numbers, while the block runs."""

    def tell(record: dict[str, Any]) -> None:
        log.info(describe(record))
        track(record)

    follower = LogFollower(path, tell)
    try:
        with repeatedly(follower.poll, SECONDS_BETWEEN_LINES):
            yield
    finally:
        follower.poll()


def _tidy(work: Path, place: RunPlace) -> None:
    """Leave the model and its log, nothing of the run."""
    place.remove()
    for file in (work / WEIGHTS).iterdir():
        file.replace(work / file.name)
    for folder in (work / WEIGHTS, work / STORAGE, work / UNIVERSAL):
        shutil.rmtree(folder, ignore_errors=True)
    for file in (work / GROUP_FILE, work / OUTCOME, work / RESERVED, *work.glob(KEPT.format("*"))):
        file.unlink(missing_ok=True)
