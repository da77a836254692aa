"""The kinora command: what a user types, and the entry points of the images."""
