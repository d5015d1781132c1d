"""The build, the compiled libraries and the import."""
