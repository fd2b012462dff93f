"""Figures and Markdown of what a run did: of one run, and of several side by side."""

from hf_relearn.report.comparison import comparison_lines, write_comparison
from hf_relearn.report.run_report import write_report

__all__ = ["comparison_lines", "write_comparison", "write_report"]
