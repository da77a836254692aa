"""Plays a trace of arriving jobs on a made-up cluster, through the same decision function that the operator uses."""
