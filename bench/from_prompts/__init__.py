"""Measures the preset `from_prompts`: heads trained on generated images alone, tested on emoji of five other hands.

No setting is selected by the emoji; what was, and by what, is in docs/decisions/0046-from-prompts.md.
"""
