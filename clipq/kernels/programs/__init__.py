"""Triton programs. Nothing here is called but by the launches beside this package."""
