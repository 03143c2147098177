"""Schedules: the compute DAG, states and transform steps, sketches with holes, and tasks."""
