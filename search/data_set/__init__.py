"""Data sets of measured programs: made of runs, split, kept in Parquet, and cost models that are trained and judged on them."""
