import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")

import pytest

PETS = Path(__file__).parent / "fixtures" / "pets"
HIDDEN = 32


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of read sources of this test run; nobody's own one is touched."""
    folder = tmp_path_factory.mktemp("ranker-home")
    os.environ["RANKER_HOME"] = str(folder)
    return folder


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
