"""08 Sweep: search learning rate and loss over short trainings, and keep the best model."""

from pathlib import Path

from ranker.config import Experiment
from ranker.data import prepare
from ranker.retrieval import build_index
from ranker.training.mining import mine
from ranker.tuning.sweep import sweep

SPACE = """
train.learning_rate: {sampler: loguniform, lower: 1.0e-5, upper: 1.0e-3}
train.loss: {sampler: choice, categories: [lce, bce]}
"""


def main() -> None:
    """Read the data, mine, then try two settings; `python jobs/tune.py EXPERIMENT` does the same on a cluster."""
    space = Path("runs/examples/space.yaml")
    space.parent.mkdir(parents=True, exist_ok=True)
    space.write_text(SPACE)
    experiment = Experiment().with_overrides({
        "name": "sweep", "output_dir": "runs/examples/sweep",
        "data.source": "pydocs", "data.options": {"max_documents": 300},
        "index.max_length": 32, "index.num_workers": 1,
        "mine.max_queries": 24, "mine.num_dev_queries": 6, "mine.dev_depth": 5, "mine.num_negatives": 2,
        "train.max_steps": 2, "train.batch_size": 4, "train.max_length": 32, "train.num_workers": 1,
        "tune.space": str(space), "tune.num_trials": 2, "tune.max_concurrent": 1,
        "tune.num_seeds": 0,  # 3, the default, also says whether the gain is more than chance
    })  # fmt: skip
    for stage in (prepare, build_index, mine):
        stage(experiment)
    done = sweep(experiment)
    print(done.folder, done.outcome)


if __name__ == "__main__":
    main()
