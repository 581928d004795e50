"""Face and voice encoders and the alignment model that joins them (pure torch)."""
