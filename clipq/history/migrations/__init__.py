"""Alembic's scripts of the store's schema, run by `clipq.history.migrate` alone."""
