import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ranker.data.inspection import lengths
from ranker.data.inspection.lengths import Lengths, count_tokens, sampled_rows
from ranker.data.inspection.report import inspect_source
from ranker.data.pieces import TablePiece
from ranker.data.source import Source
from ranker.pretrained import BUNDLED, resolve
from ranker.schemas import CORPUS


def test_tokens_are_those_of_the_bundled_model_and_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    monkeypatch.setattr(lengths, "BATCH_CHARACTERS", 60)
    texts = ["", "dogs bark", "Encyclopædia Britannica: naïve, 你好", "word " * 700]
    oracle = AutoTokenizer.from_pretrained(resolve(BUNDLED))
    expected = [len(oracle(text, add_special_tokens=False, truncation=False)["input_ids"]) for text in texts]
    assert count_tokens(texts).tolist() == expected
    assert expected[0] == 0 and expected[3] == 700


def test_tokens_are_counted_without_torch() -> None:
    code = (
        "import sys; from ranker.data.inspection.lengths import count_tokens; "
        "sys.exit(count_tokens(['x'])[0] != 1 or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_lengths_are_those_of_a_seeded_sample(tmp_path: Path) -> None:
    words = [1, 600, 3, 200, 300, 2, 7, 130]
    corpus = pa.table([[str(n) for n in range(8)], [""] * 8, ["dog " * n for n in words]], schema=CORPUS)
    source = Source("long", "test", [TablePiece(corpus.slice(0, 3)), TablePiece(corpus.slice(3))])
    whole = inspect_source(source, tmp_path / "a").document_lengths
    median, p90, p99 = np.percentile(words, [50, 90, 99])
    over = {"128": 4 / 8, "256": 2 / 8, "512": 1 / 8}
    assert whole == Lengths(8, 1, median, p90, p99, 600, float(np.mean(words)), over)
    part = inspect_source(source, tmp_path / "b", sample=3, seed=5).document_lengths
    chosen = [words[row] for row in sampled_rows(8, 3, 5)]
    assert part is not None and (part.measured, part.mean) == (3, np.mean(chosen))
    assert sampled_rows(8, 3, 5) != sampled_rows(8, 3, 6)
    assert len(set(sampled_rows(10**12, 100, 0))) == 100
