"""Derivatives of any order and mode, transforms, compilers and export."""
