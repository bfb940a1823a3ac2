"""Datasets in the forms that other libraries load: zips, WebDataset shards, COCO annotations, Croissant."""
