"""Template, style and script of the sweep report."""
