"""Trained classifiers as files that work without Foxhound, and heat maps that show what a class was seen in.

Backbone and head become one ONNX graph, one safetensors file, or a bundle: a zip with weights, preprocessing, a script
of a few lines and a model card. Imports no HTTP, SQL or pydantic, and none of the application's packages: callers hand
over modules, arrays and plain values. The functions block; callers run them on a pool thread. The ONNX graph is traced
in a child process (`python -m app.exporting`).
"""
