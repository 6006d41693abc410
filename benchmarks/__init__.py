"""Speed, measured on real services, as ratios to a floor that is measured in the same run."""
