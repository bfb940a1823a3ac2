"""The files of the demo pack, whose models are trained on drawings; `demo_pack/` at the root builds them."""
