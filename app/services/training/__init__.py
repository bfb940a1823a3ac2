"""Train jobs and the models that they register."""
