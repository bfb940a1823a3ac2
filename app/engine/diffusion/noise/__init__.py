"""The noise of an image's steps: schedulers, plans, forecasts, the update of samples."""
