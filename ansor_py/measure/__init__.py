"""Measuring: builders and runners behind one `Measurer`, timing, error kinds and records."""
