from contextlib import nullcontext
from pathlib import Path

import pytest

from ranker.config import Experiment


@pytest.fixture(scope="session")
def experiment(encoding_class, pets, tiny_retriever, tiny_reranker, tmp_path_factory) -> Path:
    """An experiment file whose data and index are done."""
    from ranker.data.catalog import prepare
    from ranker.retrieval import embed
    from ranker.retrieval.index import build_index

    folder = tmp_path_factory.mktemp("service")
    config = Experiment().with_overrides({
        "name": "pets", "output_dir": str(folder / "runs"), "data.source": str(pets),
        "index.model": tiny_retriever, "index.num_workers": 1, "serve.reranker": tiny_reranker,
        "serve.scoring.precision": "fp32",
    })  # fmt: skip
    (folder / "pets.yaml").write_text(config.to_yaml())
    prepare(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embed, "_encoded", encoding_class())  # ten documents are not worth a cluster
        patch.setattr(embed, "connected", lambda config: nullcontext())
        build_index(config)
    return folder / "pets.yaml"
