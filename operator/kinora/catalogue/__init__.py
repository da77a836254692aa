"""The models known to Kinora: weight files, limits, defaults, tasks. Data and lookup only."""
