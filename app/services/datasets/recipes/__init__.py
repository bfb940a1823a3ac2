"""What each image of a dataset is generated from: recipe, presets, prompt templates and seeds, as pure functions."""
