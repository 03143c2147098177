"""Cost models: batched program features, the LightGBM model, a random model and accuracy metrics."""
