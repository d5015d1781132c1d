"""Losses of DTensors, in several processes on the CPU."""
