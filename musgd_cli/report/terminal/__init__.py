"""Rich tables and panels, one module a subject."""
