"""Clusters: one set of values, the files rendered from it, and the driver on the head node."""
