"""Measurements: each is a program of its own; none is a test."""
