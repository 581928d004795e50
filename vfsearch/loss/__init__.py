"""The losses of the alignment model, the identity re-weighting and the bound (pure torch)."""
