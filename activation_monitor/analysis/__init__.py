"""Pure functions on measurements: numpy and scipy only, no framework, files or clock."""
