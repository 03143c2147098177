"""The task scheduler: which task is next, and the objective by which it decides (paper, section 6)."""
