"""What the report's notebooks need, a module for each of them."""

from IPython.display import Markdown
from IPython.display import display as show

from roadseg.data import survey
from roadseg.report import charts, findings, pictures, tables
from roadseg.report.chapters import baseline, data, failures, fcn, front, networks, tricks
from roadseg.report.load import load, predictions, scored, splits
from roadseg.report.names import arm_styles, arm_titles
from roadseg.report.say import say

__all__ = [
    "Markdown", "arm_styles", "arm_titles", "baseline", "charts", "data", "failures", "fcn",
    "findings", "front", "load", "networks", "pictures", "predictions", "say", "scored", "show",
    "splits", "survey", "tables", "tricks",
]  # fmt: skip
