"""Measure a scan against the truth of a simulated log, and the simulated log for giveaways."""

from stillwatch.evaluation.leaks import LeakReport, probe
from stillwatch.evaluation.metrics import Evaluation, Prices, evaluate
from stillwatch.evaluation.render import evaluation_view, leaks_view, show

__all__ = ["Evaluation", "LeakReport", "Prices", "evaluate", "evaluation_view", "leaks_view", "probe", "show"]
