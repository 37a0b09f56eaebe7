"""Executes the notebooks, checks what came out, and makes the report of it."""
