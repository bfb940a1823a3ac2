"""Evaluation of classifiers: metrics by source of the images, warnings, comparison, stored form, and the report."""
