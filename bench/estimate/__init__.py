"""How near a dry run's estimate is to what the dataset then takes, on the demo pack, idle and loaded."""
