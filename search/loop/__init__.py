"""The tuning loop: rounds of proposing, measuring, recording and learning, for one task or many; the run directory.

`tuning.py` is the way in.
"""
