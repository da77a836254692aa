"""Probing and transforming images and videos. Never a network address, never a credential."""
