"""Voices and faces on disk: layout, synthesis, the decoded store, batches and query lists."""
