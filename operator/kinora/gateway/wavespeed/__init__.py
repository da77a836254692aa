"""The WaveSpeed dialect: /api/v3, as its document and the `wavespeed` package have it. Knows no other dialect."""
