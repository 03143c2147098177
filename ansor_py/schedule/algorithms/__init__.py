"""Algorithms: other ways to compute what a stage computes, one file for each kind."""

from ansor_py.schedule.algorithms import winograd  # noqa: F401  # they register themselves
from ansor_py.schedule.algorithms.registry import ALGORITHMS, MATH, Algorithm, admitted, algorithm, are_exact, check_math

__all__ = ["ALGORITHMS", "MATH", "Algorithm", "admitted", "algorithm", "are_exact", "check_math"]
