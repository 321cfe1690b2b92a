"""Postgres, the only truth: one file for each group of tables."""
