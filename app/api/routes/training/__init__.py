"""Routes of train jobs, of the models that they make, and of backbones."""
