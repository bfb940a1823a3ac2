"""The shots of a dataset: real images that its training images begin with.

Read and prepared once, when the dataset is created (`loading`), and kept with it (`records`), so that jobs on any node
draw the same bytes after the stored images were deleted.
"""
