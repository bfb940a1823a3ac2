"""Measures the preset `from_prompts`: heads trained on generated images alone, tested on emoji of five other hands.

The emoji choose nothing: no setting was, or is, selected by them.
"""
