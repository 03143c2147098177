"""Graphs: ONNX import, the graph IR and its passes, fusion, partition into tasks, and the compiled model."""
