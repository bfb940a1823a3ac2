"""Routes under `/hf` for `huggingface_hub.InferenceClient`, one URL a task."""
