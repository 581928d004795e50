"""Promotion of a sweep's best model to the MLflow registry."""
