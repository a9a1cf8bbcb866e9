"""Finds faults in a set of images before a training spends hours on them.

`audit` examines the pixels that a training would see and the files that they come from. It
deletes and changes nothing.
"""

from training.data.audit.inspection import audit
from training.data.audit.record import record
from training.data.audit.report import Report
from training.data.audit.sheet import sheet

__all__ = ["Report", "audit", "record", "sheet"]
