"""Sketch rules: how sketches are derived, one file a rule, registered by decorator."""
