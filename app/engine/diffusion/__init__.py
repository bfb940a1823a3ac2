"""Stable Diffusion in steps: prompts, noise plans, denoising, decoding."""
