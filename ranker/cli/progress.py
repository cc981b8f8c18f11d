"""Show what the rooms log."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.logging import RichHandler

# They warn about themselves on every start; a user of this command can do nothing about it.
QUIET = (
    "huggingface_hub",
    "deepspeed",
    "DeepSpeed",
    "transformers",
    "ray",
    "sentence_transformers",
    "torch",
    "matplotlib",
    "bm25s",
)


@contextmanager
def show_progress(level: int = logging.INFO) -> Iterator[Console]:
    """Log lines of ``ranker`` on standard error (standard output is for results), others from WARNING on."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Ray's C++ half writes past every logger; its files keep what matters.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    console = Console(stderr=True)
    handler = RichHandler(console=console, show_path=False, show_level=False, log_time_format="%H:%M:%S", markup=False)
    if os.environ.get("RANKER_TRACEBACK"):
        level = logging.DEBUG
    root, ours = logging.getLogger(), logging.getLogger("ranker")
    before = ours.level
    root.addHandler(handler)
    ours.setLevel(level)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        yield console
    finally:
        root.removeHandler(handler)
        ours.setLevel(before)
