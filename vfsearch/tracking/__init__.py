"""MLflow runs, artifacts on S3 and the local servers that hold them."""
