"""General text that a training mixes in by name: prepared and mined like any collection, beside the experiment."""

import logging
from pathlib import Path

from ranker.config import DataConfig, Experiment, MineConfig

log = logging.getLogger(__name__)

# Name in `train.mix` -> where the text comes from. Docstrings are on every machine; the quickstart reads the same.
GENERAL = {"pydocs": DataConfig(source="pydocs", options={"max_documents": 8000})}
FOLDER = "general"
# Summaries are short, and so is what is said of them.
MAX_LENGTH = 128
# Close ones and drawn ones: a text of another domain is mostly compared with what has nothing to do with it.
MINING = MineConfig(
    num_candidates=30,
    num_negatives=7,
    sampling_strategy="random",
    relative_margin=None,
    random_ratio=0.3,
    max_queries=2500,
    num_dev_queries=60,
    dev_depth=20,
)


def mix_groups(name: str, config: Experiment) -> str:
    """The groups that ``train.mix`` means: a path as it is; for a name of GENERAL a folder that is made first.

    What is done already is not done again; it lies in ``OUTPUT_DIR/general/NAME``. A file or folder that is really
    called so comes before the name.

    Args:
        name: of the field. config: says the bi-encoder, the seed, the cores and where things lie.

    Raises:
        ranker.manifest.StageError: as the stages `data`, `index` and `mine`.
    """
    if name not in GENERAL or Path(name).exists():
        return name
    from ranker.data.catalog import prepare
    from ranker.retrieval.index import build_index
    from ranker.training.mining import mine

    general = general_experiment(name, config)
    log.info("general text to mix in: %s, in %s", name, general.output_dir)
    for stage in (prepare, build_index, mine):
        stage(general)
    return str(general.folder("mine"))


def general_experiment(name: str, config: Experiment) -> Experiment:
    """The experiment of which ``data``, ``index`` and ``mine`` make the groups."""
    short = {"max_length": MAX_LENGTH, "factory": "Flat", "store": "faiss", "output_dir": None, "embeddings_dir": None}
    return Experiment(
        name=name,
        output_dir=str(Path(config.output_dir).expanduser().absolute() / FOLDER / name),
        seed=config.seed,
        data=GENERAL[name],
        index=config.index.model_copy(update=short),
        mine=MINING,
        ray=config.ray,
    )
