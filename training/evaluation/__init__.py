"""Measures how good a generator is, on the exported ONNX file that will be served."""

from training.evaluation.evaluator import evaluate
from training.evaluation.plan import FULL, PLANS, QUICK, Plan, resolve

__all__ = ["FULL", "PLANS", "QUICK", "Plan", "evaluate", "resolve"]
