"""One clear message for what a user can mend; a traceback only for what is our fault."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from ranker.registry import UnknownNameError

log = logging.getLogger(__name__)
INTERRUPTED = 130


@contextmanager
def explain() -> Iterator[None]:
    """Turn the errors that name their own remedy into one message on standard error and exit status 1.

    These are the ValueErrors, file errors and RuntimeErrors of their own (of a stage, a training, a sweep) that the
    rooms raise; ``RANKER_TRACEBACK=1`` shows where.
    """
    console = Console(stderr=True, soft_wrap=True)
    try:
        yield
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on from here", style="yellow", markup=False)
        raise SystemExit(INTERRUPTED) from None
    except OSError as error:
        full = error.errno == errno.ENOSPC
        remedy = "; free some space and give the same command again, nothing half-written was kept" if full else ""
        _fail(console, f"{error}{remedy}", error)
    except (ValueError, UnknownNameError) as error:
        _fail(console, str(error), error)
    except RuntimeError as error:
        # By its home and not by its class: a room that brings in torch is not imported to look whether it failed.
        if not type(error).__module__.startswith("ranker."):
            raise
        _fail(console, str(error), error)


def _fail(console: Console, message: str, error: Exception) -> None:
    log.debug("traceback", exc_info=error)
    console.print(f"error: {message}", style="red", markup=False, highlight=False)
    raise SystemExit(1) from error
