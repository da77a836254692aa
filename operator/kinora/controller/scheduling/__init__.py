"""Which job goes to which pod: one pure function on typed values."""
