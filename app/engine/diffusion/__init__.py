"""Stable Diffusion, step by step: prompts, noise plans, denoising, decoding."""
