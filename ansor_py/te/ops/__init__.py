"""The operators as tensor expressions, one file a family; each function returns its output `Tensor`."""
