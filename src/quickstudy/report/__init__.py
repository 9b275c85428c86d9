"""The result of a run as one static page, and tasks as pictures."""

from quickstudy.report.chapter import write_report
from quickstudy.report.pictures import task_picture

__all__ = ["task_picture", "write_report"]
