"""What is wrong with a set of images, found before a training spends hours on them.

`audit` looks at what training would see, the fitted pixels, and at what they were as files. It
deletes nothing and changes nothing.
"""

from training.audit.inspection import audit
from training.audit.record import record
from training.audit.report import Report
from training.audit.sheet import sheet

__all__ = ["Report", "audit", "record", "sheet"]
