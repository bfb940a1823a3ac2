"""What the preset `from_prompts` asks the image model for, and the views of each image that a head is trained on.

The heads are in `app/training/from_prompts.py`. Pure functions; any thread may call them.
"""
