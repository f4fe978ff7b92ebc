"""Many configs of one experiment as many runs, on this machine or on a cluster.

`sweep` computes the runs and their table, `space` names the configs, `run_locally` and `run_on_ray`
are the engines, and `SWEEP` draws a finished sweep.
"""

from contam.sweep.cluster import check_address, run_on_ray
from contam.sweep.local import run_locally
from contam.sweep.member import Member, Outcome
from contam.sweep.page import SWEEP
from contam.sweep.space import Range, Space, space
from contam.sweep.sweep import NAME, sweep

__all__ = [
    "NAME",
    "SWEEP",
    "Member",
    "Outcome",
    "Range",
    "Space",
    "check_address",
    "run_locally",
    "run_on_ray",
    "space",
    "sweep",
]
