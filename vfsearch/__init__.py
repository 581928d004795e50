"""vfsearch: distributed hyperparameter search for voice-face association learning."""

__version__ = "0.1.0"
