"""Sources that misbehave within stated bounds, and a check that a sync still ends with what they hold."""
