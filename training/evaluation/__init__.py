"""How good a generator is, measured on the exported ONNX file: on what will be served."""

from training.evaluation.judge import evaluate
from training.evaluation.plan import FULL, PLANS, QUICK, Plan, resolve

__all__ = ["FULL", "PLANS", "QUICK", "Plan", "evaluate", "resolve"]
