"""What the driver hands to each worker, and where in the work folder they meet.

Apart from the loop, since Ray's controller reads it as well: there it shall not bring in torch and transformers.
"""

from dataclasses import dataclass, field
from pathlib import Path

from ranker.config import TrainConfig

GROUP_FILE, WEIGHTS, OUTCOME, ORDER = "groups.arrow", "weights", "outcome.json", "order.jsonl"
# A checkpoint of another number of workers, as this number can read it; trained weights of a measured step.
UNIVERSAL, KEPT = "universal", "best-{}.safetensors"
# Name of the placement group from which Ray gives a run its cores, while it runs.
RESERVED = "placement_group.txt"


@dataclass(frozen=True)
class Job:
    """One run.

    Args:
        train: the section. seed: the experiment's. work: the stage's work folder, seen by all workers.
        counts: groups of each source in the group file: those of the training set, then those of each mix.
        dev: name -> folder of dev tables; that of the training set has the name "".
    """

    train: TrainConfig
    seed: int
    work: Path
    counts: tuple[int, ...]
    dev: dict[str, Path] = field(default_factory=dict)
