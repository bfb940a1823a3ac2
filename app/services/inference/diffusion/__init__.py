"""The diffusion model of a node: loaded, measured, and with LoRAs and embeddings of requests added."""
