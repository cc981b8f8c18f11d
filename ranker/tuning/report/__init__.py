"""One page on a sweep, to look at: a single HTML file without scripts from elsewhere."""

from ranker.tuning.report.facts import SweepReport
from ranker.tuning.report.page import REPORT, write_report

__all__ = ["REPORT", "SweepReport", "write_report"]
