"""Matching, verification and retrieval with intervals, chance, oracles and ceilings."""
