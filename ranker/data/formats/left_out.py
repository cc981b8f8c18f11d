"""Files of a folder that a format does not know: said, so that nothing is lost unseen."""

import logging
import re

from ranker.data.errors import DataError
from ranker.data.files import DataFile

log = logging.getLogger(__name__)

# What lies beside data and is none.
_NOTES = re.compile(r"(^|/)(readme|licen[cs]e|notice|copying)|\.(md|html?|pdf|py|sh|dtd|log)$")
# What may hold anything, and is looked into where it is named itself.
_ARCHIVES = re.compile(r"\.(zip|tar|tgz)$")


def say_left_out(file: DataFile, what: str) -> None:
    """Say that a file is no part of ``what``: loudly, where it does not look like a note beside data.

    Raises:
        DataError: where it is packed, so that it cannot be seen what it is.
    """
    name = file.name.lower().removesuffix(".gz")
    if _NOTES.search(name):
        log.info("%s: is no part of %s and is left out", file.where, what)
        return
    problem = None if _ARCHIVES.search(name) else file.packed_as()
    if problem:
        raise DataError(f"{file.where}: {problem}; or move it elsewhere, if it is no part of {what}")
    log.warning("%s: is no part of %s and is left out", file.where, what)
