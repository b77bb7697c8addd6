"""What this machine can do for sprites: each capability, what it costs to be without, and the fix.

Real tries, in private namespaces: nothing of the machine is changed, and nothing stays. (The kernel
may load a module for a try, as it would for a sprite.)
"""

from spriggan.doctor.check import Check
from spriggan.doctor.checks import ESSENTIAL, OPTIONAL
from spriggan.doctor.examination import Result, examine
from spriggan.doctor.finding import Finding, Status
from spriggan.doctor.gate import gate

__all__ = ["ESSENTIAL", "OPTIONAL", "Check", "Finding", "Result", "Status", "examine", "gate"]
