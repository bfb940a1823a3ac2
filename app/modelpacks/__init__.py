"""Where weights come from: the hub, a local folder, or the demo pack that ships with the project.

A pack is a folder with a `manifest.json` and four parts: `diffusion/` (what `StableDiffusionPipeline.from_pretrained`
reads), `clip/` (`CLIPModel` and `CLIPProcessor`), `classifier/` and `backbone/` (a torchvision state dict in
`model.safetensors` and a `config.json`). The service loads safetensors alone; the one place that opens a pickle is
`convert.py`, at fetch, after its hash was checked and with `weights_only`.
"""
