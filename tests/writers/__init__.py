"""Tiny data sets in the real on-disk formats."""
