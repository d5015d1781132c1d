"""Time and memory of ce_ext against its peers and the machine's ceilings."""
