"""The machine that programs are generated for: what is known of it is known here, and nowhere else.

`target.py` has the `Target` itself, `cores.py` what each family of CPUs does in a cycle, `architectures.py` what LLVM calls
them, and `host.py` what the system tells of this machine.
"""

from ansor_py.target.architectures import ARCHITECTURES, Architecture, architecture_of
from ansor_py.target.cores import CORES, NOMINAL_HERTZ, Core
from ansor_py.target.target import Target

__all__ = ["ARCHITECTURES", "CORES", "NOMINAL_HERTZ", "Architecture", "Core", "Target", "architecture_of"]
