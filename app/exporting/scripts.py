"""The script of a bundle, which loads and runs the classifier without Foxhound.

The script is made of fixed parts alone: names and settings are in the JSON files beside it, so that no text of a user
becomes code. Imports nothing of the application but this package; any thread.
"""

from textwrap import indent
from typing import Final

from app.exporting.classifier import ModelFacts, Part

_IMPORTS: Final = {
    "timm": "import timm\nimport torch\n",
    "torchvision": "import torch\nimport torchvision\n",
    "transformers": "import torch\nfrom transformers import CLIPImageProcessor, CLIPVisionConfig, "
    "CLIPVisionModelWithProjection\n",
}

_START: Final = """\
HERE = Path(__file__).resolve().parent
config = json.loads((HERE / "config.json").read_text(encoding="utf-8"))
setting = json.loads((HERE / "preprocessing.json").read_text(encoding="utf-8"))

"""
# What scripts of several backbones leave out, or do in another way.
_SETTING: Final = _START.splitlines(keepends=True)[2]
_RUN: Final = "model(prepare(picture)[None])"

_NATIVE: Final = {
    "timm": 'model = timm.create_model(f"local-dir:{HERE}", pretrained=True).eval()\n',
    "torchvision": """\
model = torchvision.models.get_model(config["architecture"], weights=None, num_classes=config["num_classes"]).eval()
model.load_state_dict(load_file(HERE / "model.safetensors"))
""",
}

_BACKBONE: Final = {
    "timm": 'backbone = timm.create_model(config["architecture"], num_classes=0, **config["model_args"])\n',
    "torchvision": """\
backbone = torchvision.models.get_model(config["architecture"], weights=None)
backbone.fc = torch.nn.Identity()
""",
    "transformers": 'backbone = CLIPVisionModelWithProjection(CLIPVisionConfig(**config["model_args"]))\n',
}

_SPLIT: Final = """\
tensors = load_file(HERE / "model.safetensors")
names = [name for name in tensors if name.startswith("backbone.")]
backbone.load_state_dict({name.removeprefix("backbone."): tensors[name] for name in names})
backbone.eval()


def model(pixels):
    features = backbone(pixels)EMBEDS
    if config["normalise"]:
        features = torch.nn.functional.normalize(features, dim=1)
    return torch.nn.functional.linear(features, tensors["head.weight"], tensors["head.bias"])


"""

_PREPARE: Final = {
    "torchvision": """\
prepare = transforms.Compose([
    transforms.Resize(setting["resize"], transforms.InterpolationMode(setting["interpolation"])),
    transforms.CenterCrop(setting["crop"]),
    transforms.ToTensor(),
    transforms.Normalize(setting["mean"], setting["std"]),
])
""",
    "timm": """\
prepare = timm.data.create_transform(
    (3, setting["crop"], setting["crop"]), is_training=False, interpolation=setting["interpolation"],
    mean=setting["mean"], std=setting["std"], crop_pct=setting["crop_pct"], crop_mode=setting["crop_mode"],
)
""",
    "transformers": """\
processor = CLIPImageProcessor(
    size={"shortest_edge": setting["resize"]}, crop_size={"height": setting["crop"], "width": setting["crop"]},
    resample=Image.Resampling[setting["interpolation"].upper()], image_mean=setting["mean"], image_std=setting["std"],
)


def prepare(picture):
    return processor(picture, return_tensors="pt")["pixel_values"][0]
""",
}

# With several backbones, the fixed parts above become functions of the settings `config` or `setting`.
_SEVERAL: Final = """\
tensors = load_file(HERE / "model.safetensors")
parts = []
for part in config["backbones"]:
    prefix = "backbones." + part["name"] + "."
    names = [name for name in tensors if name.startswith(prefix)]
    backbone = build[part["library"]](part)
    backbone.load_state_dict({name.removeprefix(prefix): tensors[name] for name in names})
    parts.append((backbone.eval(), prepare_by[part["transform"]](part["preprocessing"])))


def features_of(backbone, pixels):
    output = backbone(pixels)
    return torch.nn.functional.normalize(getattr(output, "image_embeds", output), dim=1)


def model(picture):
    features = torch.cat([features_of(backbone, prepare(picture)[None]) for backbone, prepare in parts], dim=1)
    if config["normalise"]:
        features = torch.nn.functional.normalize(features, dim=1)
    return torch.nn.functional.linear(features, tensors["head.weight"], tensors["head.bias"])
"""

_END: Final = """

@torch.inference_mode()
def predict(path):
    \"\"\"Return the probability of each class, in the order of config["label_names"].\"\"\"
    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGBA")
    picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return model(prepare(picture)[None]).softmax(dim=1)[0]


if __name__ == "__main__":
    for path in sys.argv[1:]:
        probability, number = predict(path).max(dim=0)
        label = config["label_names"][int(number)]
        print(json.dumps({"file": path, "label": label, "probability": round(float(probability), 6)}))
"""


def predict_script(facts: ModelFacts, *, is_native: bool) -> str:
    """Return `predict.py`: `python predict.py PICTURE...` prints one JSON object a picture.

    Args:
        facts: Choose the parts; none of its texts is in the script.
        is_native: Whether the tensors have the layout `native`.
    """
    if facts.parts:
        return _script_of_parts(facts)
    library = facts.network.library
    transform = transform_of(facts.backbones[0])
    body = _NATIVE[library] if is_native else _BACKBONE[library] + _split(library)
    imports = [
        f"{_IMPORTS[library]}from PIL import Image, ImageOps",
        *([] if is_native and library == "timm" else ["from safetensors.torch import load_file"]),
        *(["from torchvision import transforms"] if transform == "torchvision" else []),
    ]
    return _script(facts, imports, f"{_START}{body}{_PREPARE[transform]}{_END}")


def requirements(facts: ModelFacts) -> str:
    """Return the packages that the script needs, for people."""
    libraries = {part.network.library for part in facts.backbones}
    others = [library for library in ("timm", "transformers") if library in libraries]
    return ", ".join(["torch", "torchvision", *others, "safetensors"]) + " and Pillow"


def transform_of(part: Part) -> str:
    """Return whose transform prepares pictures; timm's for crop modes that torchvision lacks."""
    if part.network.library == "timm" and part.preprocessing.get("crop_mode", "center") != "center":
        return "timm"
    is_clip = part.network.library == "transformers" and part.preprocessing.get("library") == "transformers"
    return "transformers" if is_clip else "torchvision"


def _script(facts: ModelFacts, imports: list[str], body: str) -> str:
    return (
        f'"""Classify pictures: python predict.py PICTURE... (needs {requirements(facts)})."""\n\n'
        "import json\nimport sys\nfrom pathlib import Path\n\n" + "\n".join(imports) + f"\n\n{body}"
    )


def _script_of_parts(facts: ModelFacts) -> str:
    """Return the script of several backbones; those of one library share its functions."""
    libraries = sorted({part.network.library for part in facts.parts})
    transforms = sorted({transform_of(part) for part in facts.parts})
    lines = {line for library in libraries for line in _IMPORTS[library].splitlines()}
    lines |= {"from PIL import Image, ImageOps", "from safetensors.torch import load_file"}
    if "torchvision" in transforms:
        lines.add("from torchvision import transforms")
    imports = sorted(lines, key=lambda line: (line.startswith("from"), line))
    functions = [
        *(_function(f"build_{name}", "config", _BACKBONE[name], "backbone") for name in libraries),
        *(_function(f"prepare_{name}", "setting", _PREPARE[name], "prepare") for name in transforms),
        f"build = {{{', '.join(f'{name!r}: build_{name}' for name in libraries)}}}\n",
        f"prepare_by = {{{', '.join(f'{name!r}: prepare_{name}' for name in transforms)}}}\n",
    ]
    start = _START.replace(_SETTING, "") + "\n"
    return _script(facts, imports, start + "".join(functions) + _SEVERAL + _END.replace(_RUN, "model(picture)"))


def _function(name: str, argument: str, body: str, result: str) -> str:
    return f"def {name}({argument}):\n{indent(body, '    ')}    return {result}\n\n\n"


def _split(library: str) -> str:
    return _SPLIT.replace("EMBEDS", ".image_embeds" if library == "transformers" else "")
