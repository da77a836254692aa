"""Artifact stores behind one interface. Keys are create-only."""
