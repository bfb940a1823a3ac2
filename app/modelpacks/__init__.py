"""Model packs: weights from the hub, from a local folder, or from the demo pack that ships with the project.

A pack is a folder with a `manifest.json` and four parts: `diffusion/` (a folder for
`StableDiffusionPipeline.from_pretrained`), `clip/` (`CLIPModel` and `CLIPProcessor`), `classifier/` and `backbone/` (a
torchvision state dict in `model.safetensors` and a `config.json`). The service loads only safetensors; `convert.py`
alone opens a pickle, at fetch, after its hash was checked and with `weights_only`. Imports no engine, HTTP server or
SQL.
"""
