"""An objective: of several networks that are tuned together, the slowest one counts.

python -m ansor_py.search a.onnx b.onnx --together --import experiments/ideas/slowest_network.py --objective slowest-network
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ansor_py.search import Networks, objective


@objective("slowest-network")
def slowest_network(latencies: NDArray[np.float64], networks: Networks) -> float:
    """Seconds of the slowest network, and a little of the others, so that these are not left alone."""
    seconds = networks.seconds(latencies)
    return float(seconds.max() + 0.01 * seconds.sum())
