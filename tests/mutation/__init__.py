"""Bugs of one line in the C++ code of the CPU, all of them in one build, behind a switch."""
