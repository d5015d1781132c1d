"""Checks of the sources that need neither a GPU nor the package."""
