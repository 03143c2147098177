"""Evolution under a cost model: generations of rows, made by mutation and crossover (paper, section 5.1)."""
