"""Builds the demo pack: `drawing` draws pictures, `build` trains models on them. The service never imports it."""
