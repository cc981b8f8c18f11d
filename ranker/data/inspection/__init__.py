"""What a source holds and what is wrong with it, counted: ``ranker data inspect``."""

from ranker.data.inspection.report import Inspection, inspect_source

__all__ = ["Inspection", "inspect_source"]
