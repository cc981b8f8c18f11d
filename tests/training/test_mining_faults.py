"""Mining on two raylets: an encoding worker is killed, then a whole raylet, and the output is that of a calm run."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.config import Experiment
from ranker.data.stored import save_collection
from ranker.manifest import run_stage
from ranker.schemas import CORPUS, QRELS, QUERIES

NUM_DOCUMENTS, NUM_QUERIES = 2400, 40

# The driver: a cluster of two raylets of one core, in which a calm run and one that loses a worker and then a raylet
# follow each other.
DRIVER = """
import os, signal, sys, tempfile, threading, time, uuid
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from ranker.config import load_experiment
from ranker.retrieval import embed, embeddings
from ranker.retrieval.index import build_index
from ranker.training.mining import mine

embeddings.SMALLEST_PART = 60
embed.SENT_DOCUMENTS = 100  # the actors read the documents themselves


place = Path(sys.argv[1])
seen = place / "seen"


# How many batches may begin before the worker, and then the raylet, has been killed. Parts do not tell: they arrive in
# their order, so that all can come at once behind one that a killed worker has lost.
GATES = (8, "worker"), (18, "raylet")


class Gated(embed.EncodeDocuments):
    def __call__(self, batch):
        (seen / f"worker-{os.getpid()}").touch()
        (seen / f"batch-{uuid.uuid4().hex}").touch()
        for most, who in GATES:
            while begun() > most and not (seen / f"killed-{who}").exists():
                time.sleep(0.02)
        return super().__call__(batch)


def begun():
    return len(list(seen.glob("batch-*")))


def parts(config):
    return len(list((embed.embeddings_folder(config).parent / ".embeddings.partial").glob("part-*.parquet")))


def disturb(config):
    kills = {
        "worker": lambda: os.kill(int(next(seen.glob("worker-*")).name.split("-")[1]), signal.SIGKILL),
        "raylet": lambda: cluster.remove_node(node, allow_graceful=False),
    }
    for most, who in GATES:
        while begun() <= most:
            time.sleep(0.02)
        kills[who]()
        # In a file of one step, since other threads write to the output as well.
        (seen / "killed.partial").write_text(str(parts(config)))
        (seen / "killed.partial").rename(seen / f"killed-{who}")


with tempfile.TemporaryDirectory(prefix="rf-", dir="/tmp", ignore_cleanup_errors=True) as folder:
    head = {"num_cpus": 1, "temp_dir": folder, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    node = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    for name in ("calm", "faults"):
        config = load_experiment(place / f"{name}.yaml")
        if name == "faults":
            embed.EncodeDocuments = Gated
            threading.Thread(target=disturb, args=(config,), daemon=True).start()
        build_index(config)
        mine(config)
    ray.shutdown()
    cluster.shutdown()
"""


@pytest.fixture(scope="module")
def collection(sentences, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collection")
    texts, queries = sentences(NUM_DOCUMENTS), sentences(NUM_QUERIES, seed=1)
    corpus = pa.table([[f"d{n}" for n in range(len(texts))], [""] * len(texts), texts], schema=CORPUS)
    table = pa.table([[f"q{n}" for n in range(len(queries))], queries], schema=QUERIES)
    qrels = pa.table([[f"q{n}" for n in range(40)], [f"d{7 * n}" for n in range(40)], [1] * 40], schema=QRELS)

    def store(work: Path) -> dict[str, int]:
        save_collection(work, corpus, table, {"train": qrels})
        return {}

    run_stage("data", folder / "data", {}, {}, store)
    return folder / "data"


def run_both(collection: Path, model: str, folder: Path) -> dict[str, int]:
    """Mine in ``folder/calm`` and ``folder/faults``; how many parts there were when the worker and the raylet died."""
    for name in ("calm", "faults"):
        config = Experiment(
            output_dir=str(folder / name),
            data={"output_dir": str(collection)},
            index={"model": model, "precision": "fp32", "shard_size": 700},
            mine={"num_negatives": 3, "relative_margin": None},
        )
        (folder / f"{name}.yaml").write_text(config.to_yaml())
    (folder / "seen").mkdir()
    command = [sys.executable, "-c", DRIVER, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=560)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return {who: int((folder / "seen" / f"killed-{who}").read_text()) for who in ("worker", "raylet")}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_worker_and_a_killed_raylet_change_nothing(
    collection: Path, tiny_retriever: str, tmp_path: Path
) -> None:
    after = run_both(collection, tiny_retriever, tmp_path)
    calm, disturbed = tmp_path / "calm", tmp_path / "faults"
    assert max(after.values()) < NUM_DOCUMENTS // 60, "both happened in the middle"
    assert json.loads((disturbed / "embeddings" / "manifest.json").read_text())["outcome"]["encoded"] == NUM_DOCUMENTS
    for name in ("hashes.npy", "signatures.npy"):
        assert (np.load(disturbed / "embeddings" / name) == np.load(calm / "embeddings" / name)).all()
    for name in ("groups", "negatives"):
        tables = [pq.read_table(folder / "mine" / f"{name}.parquet") for folder in (calm, disturbed)]
        assert tables[0].equals(tables[1]), name
    assert pq.read_table(calm / "mine" / "groups.parquet").num_rows == NUM_QUERIES
