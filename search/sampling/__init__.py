"""The programs of a sketch as rows of genes: their space, random rows, and which rows are valid."""
