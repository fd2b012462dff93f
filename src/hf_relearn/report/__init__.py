"""Figures and Markdown of what a run did: of one run, and of several side by side."""

from hf_relearn.report.comparison import write_comparison
from hf_relearn.report.run_report import write_report

__all__ = ["write_comparison", "write_report"]
