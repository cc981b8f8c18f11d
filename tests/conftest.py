import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
# A new cluster starts processes at once for tasks without an environment of their own; ours have one.
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
# As the pages tell those who serve; Ray's proxies read it from the environment that the cluster starts in.
os.environ.setdefault("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "ranker.serving.proxy:middlewares")

import pytest

PETS = Path(__file__).parent / "fixtures" / "pets"
# Fixtures that take minutes: every test that shares one runs in the same process.
COSTLY = ("interrupted_quickstart",)
# About how long a slow test of a file takes, so that the longest do not begin last.
SECONDS = {
    "test_quickstart": 150, "test_examples": 25, "test_readme": 25, "test_trainer": 50, "test_sweep_faults": 90,
    "test_sweep_trials": 110, "test_training_faults": 130, "test_mining_faults": 70, "test_object_storage": 60,
    "test_cluster": 80, "test_node_loss": 100, "test_changes": 40, "test_faults": 20, "test_service": 40,
    "test_kills": 25, "test_reranking": 40, "test_repeats": 30,
}  # fmt: skip
HIDDEN = 32


def _group(item: pytest.Item) -> str:
    shared = [name for name in COSTLY if name in getattr(item, "fixturenames", ())]
    return shared[0] if shared else str(item.path)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # marks before pytest-xdist reads them, an order after some are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Processes share the files out (`-n 2 --dist loadgroup`): the tests wait more than they compute."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    yield
    seconds: dict[str, int] = {}
    for item in items:
        took = SECONDS.get(item.path.stem, 10) if item.get_closest_marker("slow") else 1
        seconds[_group(item)] = seconds.get(_group(item), 0) + took
    items.sort(key=lambda item: (-seconds[_group(item)], _group(item)))


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of read sources of this test run; nobody's own one is touched."""
    folder = tmp_path_factory.mktemp("ranker-home")
    os.environ["RANKER_HOME"] = str(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def folder_of_clusters() -> None:
    """`ray.cluster_utils.Cluster` writes an address into Ray's default folder, which a fresh machine does not have."""
    from ray._common.utils import get_default_ray_temp_dir

    Path(get_default_ray_temp_dir()).mkdir(parents=True, exist_ok=True)


@pytest.fixture(scope="session")
def pets() -> Path:
    """A collection in BEIR layout that fits on a screen: 10 documents, 10 queries, train/dev/test = 6/2/2."""
    return PETS


def _vocabulary() -> list[str]:
    # Whole words of the fixture, then single characters, so that nothing is [UNK].
    text = " ".join(file.read_text() for file in (PETS / "corpus.jsonl", PETS / "queries.jsonl")).lower()
    words = sorted({"".join(c for c in word if c.isalpha()) for word in text.split()} - {""})
    letters = [chr(c) for c in range(33, 127)]
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters), *words]


def _save_tokenizer(folder: Path) -> int:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(_vocabulary()))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)
    return len(vocabulary)


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random BERT encoder of two layers without a head (seeded), as a folder."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    size = _save_tokenizer(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=size, hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_reranker(tiny_backbone: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random BERT cross-encoder with one label, as a folder that the peers open."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("models") / "tiny-reranker"
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_backbone, num_labels=1)
    torch.nn.init.normal_(model.classifier.weight, std=1.0)  # spread the scores, so that an order can be tested
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_backbone).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_retriever(tiny_backbone: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random bi-encoder with mean pooling, as a sentence-transformers folder."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    folder = tmp_path_factory.mktemp("models") / "tiny-retriever"
    body = Transformer(tiny_backbone, max_seq_length=64)
    SentenceTransformer(modules=[body, Pooling(HIDDEN, "mean")], device="cpu").save(str(folder))
    return str(folder)


@pytest.fixture(scope="session")
def ray_cluster():
    """One local Ray cluster of two cores for the whole test run."""
    import ray

    from ranker.config import RayConfig
    from ranker.session import connected

    with connected(RayConfig(num_cpus=2)):
        yield ray


def beside(name: str) -> Any:
    """A module of this folder."""
    spec = spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def forks(ray_cluster: Any) -> Iterator[Any]:
    """Starts programs in processes of their own in which the costly imports are done; see ``forks.py``.

    After the cluster: Ray reads whether it asks for a token when it is imported.
    """
    started = beside("forks").Forks()
    yield started
    started.stop()


@pytest.fixture
def pinecone_server() -> Iterator[Any]:
    """Makes a local Pinecone of one index: ``pinecone_server(dimension, metric, lag)``; ``url``, ``spaces``."""
    module, started = beside("pinecone_server"), []

    def start(dimension: int, metric: str = "dotproduct", lag: float = 0.0) -> Any:
        started.append(module.PineconeServer(dimension, metric, lag))
        return started[-1]

    start.options = lambda server: {"index": module.INDEX, "host": server.url, "api_key": module.KEY}
    yield start
    for server in started:
        server.stop()


class Encoding:
    """What the encoding actors do, in this process; ``asked`` are the texts of each run of the stage."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.stop_at: int | None = None

    def __call__(self, corpus, tasks, index):
        from ranker.retrieval import embed

        actor = embed.EncodeDocuments(corpus.folder, index.model, index.max_length, index.precision, 64, 1)
        self.asked.append([])
        for task in tasks:
            if task.part.number == self.stop_at:
                self.stop_at = None
                raise KeyboardInterrupt
            table = embed._documents_of(corpus, task.part, task.rows)
            self.asked[-1] += table["text"].to_pylist()
            yield task.part.number, actor(table).drop_columns(["part"])


@pytest.fixture(scope="session")
def encoding_class() -> type[Encoding]:
    """:class:`Encoding`."""
    return Encoding


@pytest.fixture
def encode_here(monkeypatch: pytest.MonkeyPatch) -> Encoding:
    """Documents are encoded without Ray."""
    from ranker.retrieval import embed

    calls = Encoding()
    monkeypatch.setattr(embed, "_encoded", calls)
    return calls


def recorded_step(work: Path) -> int:
    """The step of the checkpoint from which Ray Train goes on in this work folder; 0 while there is none.

    A folder of a checkpoint is there earlier, while workers still copy into it. Ray's controller writes this file when
    every worker has reported, and a restarted run believes this file alone.
    """
    try:
        state = json.loads((work / "ray" / "run" / "checkpoint_manager_snapshot.json").read_text())
    except (FileNotFoundError, ValueError):  # ValueError: it is being written
        return 0
    newest = state["latest_checkpoint_result"]
    return newest["metrics"]["step"] if newest else 0


class Quickstart(NamedTuple):
    """A small quickstart in ``reader/runs/quickstart`` that was killed while it trained, and run again to its end.

    Args:
        reader: the folder it ran in, with ``jobs/`` beside it. config: what it ran.
        recorded: the step of the checkpoint that was safe when it was killed.
        left: names in the folder of the runs at that time. whole: those with a manifest.
        log: of the second run. again: runs it once more and returns exit status and log.
    """

    reader: Path
    config: Any
    recorded: int
    left: set[str]
    whole: set[str]
    log: str
    again: Callable[[], tuple[int, str]]


SMALL_QUICKSTART = [
    "data.options.max_documents=300", "index.cpus_per_worker=2", "index.max_length=32",
    "mine.max_queries=60", "mine.num_dev_queries=6", "mine.dev_depth=10",
    "train.batch_size=4", "train.max_steps=14", "train.checkpoint_every=3", "train.max_length=64",
    "evaluate.max_queries=30", "evaluate.depth=10", "export.num_samples=8",
]  # fmt: skip


@pytest.fixture(scope="session")
def interrupted_quickstart(tmp_path_factory: pytest.TempPathFactory, forks: Any) -> Quickstart:
    """The main job at a size that fits a test; what it leaves also serves other tests and the blocks of the pages."""
    from ranker.config import load_experiment

    reader = tmp_path_factory.mktemp("reader")
    shutil.copytree(Path(__file__).parent.parent / "jobs", reader / "jobs")
    runs, log, program = reader / "runs" / "quickstart", reader / "quickstart.log", reader / "command.py"
    overrides = [word for pair in SMALL_QUICKSTART for word in ("--set", pair)]
    program.write_text("from ranker.cli import app\n\napp()\n")

    def start(**environment: str) -> Any:
        words, more = ["quickstart", "--output-dir", str(runs), *overrides], {"COLUMNS": "140", **environment}
        return forks.start(program, words, cwd=reader, log=log, **more)

    def finish() -> tuple[int, str]:
        return start().wait(timeout=400), log.read_text()

    process, deadline = start(RAY_TRAIN_HEALTH_CHECK_INTERVAL_S="2"), time.monotonic() + 400
    # The second checkpoint; the run cannot be much further, since Ray looks for reports every two seconds.
    while (recorded := recorded_step(runs / ".model.partial")) < 6:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)  # the driver and, with it, everything of its own session
    process.wait()
    left, whole = {path.name for path in runs.iterdir()}, {path.parent.name for path in runs.glob("*/manifest.json")}
    status, text = finish()
    assert status == 0, text[-3000:]
    config = load_experiment(reader / "jobs" / "quickstart.yaml", [*SMALL_QUICKSTART, f"output_dir={runs}"])
    return Quickstart(reader, config, recorded, left, whole, text, finish)
