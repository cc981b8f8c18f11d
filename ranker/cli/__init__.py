"""The ``ranker`` command and the main function of every job script."""

from ranker.cli.app import app

__all__ = ["app"]
