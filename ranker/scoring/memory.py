"""Logits of rows that were scored before: the same question about the same document costs nothing again."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np


def row_keys(columns: Mapping[str, Sequence[Sequence[int]]]) -> list[bytes]:
    """16 bytes for each row of token ids; equal rows have equal ones."""
    types = columns.get("token_type_ids")
    # Type ids besides, since a text may spell a special token.
    seconds = [sum(row) for row in types] if types is not None else [0] * len(columns["input_ids"])
    return [
        hashlib.blake2b(np.array([second, *ids], dtype=np.int32).tobytes(), digest_size=16).digest()
        for second, ids in zip(seconds, columns["input_ids"], strict=True)
    ]


class LogitMemory:
    """The logits that were asked for last, up to ``size``; threads may share it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def recall(self, keys: Sequence[bytes]) -> dict[bytes, float]:
        """What is remembered of these."""
        if not self.size:
            return {}
        with self._lock:
            found = {key: self._known[key] for key in keys if key in self._known}
            for key in found:
                self._known.move_to_end(key)
        return found

    def keep(self, logits: Mapping[bytes, float]) -> None:
        """Remember these and forget the oldest beyond ``size``."""
        if not self.size:
            return
        with self._lock:
            self._known.update(logits)
            while len(self._known) > self.size:
                self._known.popitem(last=False)
