"""Labelled datasets: recipes, generation, uploads, exports."""
