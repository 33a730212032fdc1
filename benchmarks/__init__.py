"""Measurements of speed: one module per question, one JSON line per measurement."""
