"""The services that can show a training as curves, behind one protocol, and the registry of them."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from ranker.manifest import write_json
from ranker.registry import Registry

# What runs are filed under, where MLFLOW_EXPERIMENT_NAME or WANDB_PROJECT do not say it.
PROJECT = "ranker"
# A killed driver loses no more than this of its event file.
SECONDS_TO_FLUSH = 2
# MLflow's limits for one call, and for the text of one parameter in its older servers.
PARAMETERS_A_CALL, LONGEST_PARAMETER = 100, 500
# How often and how long (seconds) a silent server is tried, where these are not set. By itself MLflow takes minutes, in
# which no later number would be sent.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "WANDB_INIT_TIMEOUT": "30",
}


class Tracker(Protocol):
    """One run in one tracking service. Whatever a method raises ends this tracking, and not the training."""

    def say(self, step: int, message: str) -> None:
        """Note a message of the log, where the service has a place for text."""
        ...

    def plot(self, step: int, numbers: Mapping[str, float], when: float) -> None:
        """Add a point to each curve; ``when`` in seconds since 1970."""
        ...

    def close(self, failed: bool) -> None:
        """Send what is left and mark the run as ended."""
        ...


class TrackerClass(Protocol):
    """What the registry holds: something that starts a run, or continues that of the same folder.

    Args:
        package: that must be importable. remedy: the command that installs it.
    """

    package: str
    remedy: str

    def __call__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> Tracker:
        """The run ``name`` with ``settings``; ``folder`` keeps what a later driver needs to continue it."""
        ...


TRACKERS: Registry[TrackerClass] = Registry("tracker")


@TRACKERS.register("tensorboard")
class TensorBoard:
    """Event files in ``folder``, for ``tensorboard --logdir``. Steps that are run again take the place of the old."""

    package, remedy = "tensorboardX", "pip install 'ray[tune]'"

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        self._folder, self._settings = folder, settings
        self._writer: Any = None
        self._reached = -1

    def say(self, step: int, message: str) -> None:
        """See :class:`Tracker`. A message says after which step the run begins or goes on."""
        self._go_to(step, hide=step + 1)
        self._writer.add_text("log", message, step)

    def plot(self, step: int, numbers: Mapping[str, float], when: float) -> None:
        """See :class:`Tracker`."""
        from tensorboardX.proto.summary_pb2 import Summary

        self._go_to(step, hide=step)
        # Not add_scalar, which would call it ndcg_10.
        values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        self._writer.file_writer.add_summary(Summary(value=values), step, when)

    def close(self, failed: bool) -> None:
        """See :class:`Tracker`."""
        if self._writer is not None:
            self._writer.close()

    def _go_to(self, step: int, hide: int) -> None:
        """At the start and after a step back, open a file that hides what earlier ones hold from ``hide`` on."""
        back, self._reached = step < self._reached, step
        if self._writer is None or back:
            self.close(failed=True)
            self._writer = self._opened(hide)

    def _opened(self, hide: int) -> Any:
        from tensorboardX import SummaryWriter

        # Two files of one second would have one name; the number sets them apart and keeps them in order.
        number = len(list(self._folder.glob("events.out.tfevents.*")))
        writer = SummaryWriter(
            str(self._folder), purge_step=hide, flush_secs=SECONDS_TO_FLUSH, filename_suffix=f".{number:03d}"
        )
        if number == 0:
            lines = [f"    {path}: {value}" for path, value in dotted(self._settings)]  # a block of code in Markdown
            writer.add_text("settings", "\n".join(lines), 0)
        return writer


class Kept:
    """What a later driver must know of a run: its id, and up to which step each curve was sent."""

    def __init__(self, file: Path) -> None:
        self._file = file
        found = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        self.run: str | None = found.get("run")
        self._sent: dict[str, int] = found.get("sent", {})

    def begin(self, run: str) -> None:
        """Remember a run; another one than before has no points yet."""
        if run != self.run:
            self.run, self._sent = run, {}
        self._write()

    def unsent(self, step: int, numbers: Mapping[str, float]) -> dict[str, float]:
        """Those numbers that the run does not have."""
        return {name: value for name, value in numbers.items() if step > self._sent.get(name, -1)}

    def note(self, step: int, names: Iterable[str]) -> None:
        """These have been sent."""
        self._sent |= dict.fromkeys(names, step)
        self._write()

    def _write(self) -> None:
        write_json(self._file, {"run": self.run, "sent": self._sent})


@TRACKERS.register("mlflow")
class MLflow:
    """A run on the server of MLFLOW_TRACKING_URI, else in ``mlflow.db`` in ``folder``.

    It is filed under MLFLOW_EXPERIMENT_NAME. Points cannot be replaced there; a step that is run again is not sent.
    """

    package, remedy = "mlflow", "pip install 'ranker[mlflow]'"

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        _be_patient()
        from mlflow import MlflowClient

        store = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / 'mlflow.db').as_posix()}"
        self._client = MlflowClient(store)
        self._kept = Kept(folder / "mlflow.json")
        self._run = self._continued() or self._started(name, settings)

    def say(self, step: int, message: str) -> None:
        """See :class:`Tracker`."""
        self._client.set_tag(self._run, "log", message)

    def plot(self, step: int, numbers: Mapping[str, float], when: float) -> None:
        """See :class:`Tracker`."""
        from mlflow.entities import Metric

        fresh = self._kept.unsent(step, numbers)
        if fresh:
            points = [Metric(legal(name), value, int(when * 1000), step) for name, value in fresh.items()]
            self._client.log_batch(self._run, metrics=points)
            self._kept.note(step, fresh)

    def close(self, failed: bool) -> None:
        """See :class:`Tracker`."""
        self._client.set_terminated(self._run, status="FAILED" if failed else "FINISHED")

    def _continued(self) -> str | None:
        """The run of the last driver, running again. None where there is none, or not on this server."""
        from mlflow.exceptions import MlflowException

        run = self._kept.run
        if run is None:
            return None
        try:
            self._client.update_run(run, status="RUNNING")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run

    def _started(self, name: str, settings: Mapping[str, Any]) -> str:
        from mlflow.entities import Param

        run: str = self._client.create_run(self._experiment(), run_name=name).info.run_id
        self._kept.begin(run)
        params = [Param(legal(path), value[:LONGEST_PARAMETER]) for path, value in dotted(settings)]
        for start in range(0, len(params), PARAMETERS_A_CALL):
            self._client.log_batch(run, params=params[start : start + PARAMETERS_A_CALL])
        return run

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except MlflowException:  # made by another trial of a sweep in between
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)


@TRACKERS.register("wandb")
class WeightsAndBiases:
    """A run of Weights & Biases, filed under WANDB_PROJECT; WANDB_MODE=offline keeps it in ``folder``.

    A step that is run again is not sent again.
    """

    package, remedy = "wandb", "pip install 'ranker[wandb]'"

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        _be_patient()
        import wandb

        self._kept = Kept(folder / "wandb.json")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=name,
            id=self._kept.run,
            resume="allow",
            config=dict(settings),
            dir=str(folder),
            reinit="create_new",  # a run of the caller's own stays as it is
            settings=wandb.Settings(console="off"),
        )
        self._kept.begin(self._run.id)
        # Its own step cannot go back, which a resumed run does.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def say(self, step: int, message: str) -> None:
        """See :class:`Tracker`."""
        self._run.summary["log"] = message

    def plot(self, step: int, numbers: Mapping[str, float], when: float) -> None:
        """See :class:`Tracker`."""
        fresh = self._kept.unsent(step, numbers)
        if fresh:
            self._run.log({**fresh, "step": step})
            self._kept.note(step, fresh)

    def close(self, failed: bool) -> None:
        """See :class:`Tracker`."""
        self._run.finish(exit_code=int(failed))


def legal(name: str) -> str:
    """A name that MLflow takes: ``dev/ndcg@10`` is ``dev/ndcg_at_10``."""
    return re.sub(r"[^\w./ -]", "_", name.replace("@", "_at_"))


def dotted(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Each setting as text under its dotted path, such as ``lora.r``."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


def _be_patient() -> None:
    for variable, value in PATIENCE.items():
        os.environ.setdefault(variable, value)
