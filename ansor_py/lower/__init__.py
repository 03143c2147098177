"""Lowering: bound inference, the loop-nest IR and its passes."""
