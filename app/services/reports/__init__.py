"""What is to be said of a dataset: figures, pages, contact sheets."""
