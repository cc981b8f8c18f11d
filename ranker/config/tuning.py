"""The sweep over fine-tuning."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ranker.config.section import Positive, Section, local


class TuneConfig(Section):
    """Search the space file over `fit`."""

    space: str = "tune_spaces/lora.yaml"
    """File of dotted config paths and samplers."""
    num_trials: Positive = 8
    """Trials; a grid has as many as its file holds."""
    metric: str = "ndcg@10"
    """Dev measure that decides."""
    search: Literal["optuna", "random", "grid", "pbt"] = "optuna"
    """How the next trial is chosen. optuna: TPE (arXiv:2304.11127); pbt: population based training
    (arXiv:1711.09846), which changes the settings while it trains."""
    scheduler: Literal["none", "asha", "hyperband"] = "none"
    """Which trials are stopped before their end (arXiv:1810.05934, arXiv:1603.06560); needs
    `train.evaluate_every`."""
    grace: float = Field(0.25, gt=0, le=0.5)
    """Share of its steps that every trial may take before it can be stopped."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """One of so many trials goes on from one measurement point of the scheduler to the next."""
    generations: Annotated[int, Field(ge=2)] = 4
    """pbt: parts of a run; after each the worst quarter continues from the weights of the best."""
    latency: bool = False
    """Measure milliseconds a query of every trial's model; optuna then looks for models that are good or fast."""
    max_latency_ms: float | None = Field(None, gt=0)
    """The best is chosen among models no slower than this. None: whatever it takes."""
    keep_best: Positive = 1
    """Models that stay: the best, and the next best as folders in `models`."""
    num_seeds: Annotated[int, Field(ge=0)] = 3
    """Seeds with which the best and the experiment as it stands are trained in the end, to know what is chance. 0: not
    at all, and nothing is measured on test."""
    time_budget_s: float | None = local(None, gt=0)
    """Seconds after which no trial goes on. None: no limit."""
    max_concurrent: Positive | None = local(None)
    """Trials at once. None: as many as the resources hold."""
    output_dir: str | None = local(None)
    """Folder of this stage. None: `sweep`."""

    @model_validator(mode="after")
    def _together(self) -> "TuneConfig":
        if self.search == "pbt" and self.scheduler != "none":
            raise ValueError(f"scheduler {self.scheduler!r} and search 'pbt' exclude each other: set scheduler to none")
        if self.search == "pbt" and self.num_trials < 2:
            raise ValueError("search 'pbt' needs num_trials of 2 or more, its population")
        if self.latency and self.scheduler != "none":
            raise ValueError("latency needs whole trials: set scheduler to none")
        if self.max_latency_ms is not None and not self.latency:
            raise ValueError("max_latency_ms needs latency: true")
        return self
