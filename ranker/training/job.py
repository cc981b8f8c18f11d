"""What the driver hands to each worker, and where in the work folder they meet.

Apart from the loop, since Ray's controller reads it as well: there it shall not bring in torch and transformers.
"""

from dataclasses import dataclass
from pathlib import Path

from ranker.config import TrainConfig

GROUP_FILE, WEIGHTS, OUTCOME = "groups.arrow", "weights", "outcome.json"


@dataclass(frozen=True)
class Job:
    """One run.

    Args:
        train: the section. seed: the experiment's. work: the stage's work folder, seen by all workers.
        dev: folder of the dev tables; None where there are none.
    """

    train: TrainConfig
    seed: int
    work: Path
    dev: Path | None
