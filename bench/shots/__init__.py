"""What variants of real shots are worth: a probe trained on five drawings a class and images made of them against one
trained on the five alone.

Run it as `python -m bench.shots`. The world of the demo pack stands in for the real one: shots and test pictures are
drawings that no part of the pack was trained on.
"""
