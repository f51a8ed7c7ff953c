"""Writes timm_models.json: what the weights of each of timm's vision transformers do not show.

Use: python3 timm_models.py (in this folder). Every entry point of timm.models.vision_transformer and timm.models.deit is built
on the meta device, and its modules are looked into; fields that have VisionTransformer's default are left out. Entry points of
other modules that are called vit_* or deit* have the module's name only.
"""
import json, warnings
import timm, torch
from timm.layers import GluMlp, Mlp
from timm.models import list_models
from timm.models._registry import _model_to_module
from timm.models.vision_transformer import Attention, Block, VisionTransformer, _RADIO_ALIGN_CORNERS

warnings.filterwarnings("ignore")
HERE = ("vision_transformer", "deit")
ACTIVATIONS = {"GELU": "gelu", "QuickGELU": "quick_gelu", "GELUTanh": "gelu_pytorch_tanh", "SiLU": "silu", "ReLU": "relu"}


def refused(model):
    """What is in it that the Rust code does not have."""
    block = model.blocks[0]
    if type(block) is not Block:
        return f"blocks of kind {type(block).__name__}"
    if type(block.attn) is not Attention:
        return f"attention of kind {type(block.attn).__name__}"
    if type(block.norm1).__name__ != "LayerNorm":
        return f"norms of kind {type(block.norm1).__name__}"
    if type(block.mlp) not in (Mlp, GluMlp) or (type(block.mlp) is GluMlp and block.mlp.gate_last):
        return f"MLPs of kind {type(block.mlp).__name__}"
    if type(model.patch_embed).__name__ != "PatchEmbed":
        return f"patches embedded by {type(model.patch_embed).__name__}"
    for name, module in (("attn.norm", block.attn.norm), ("mlp.norm", block.mlp.norm), ("patch_embed.norm", model.patch_embed.norm)):
        if type(module) is not torch.nn.Identity:
            return f"a norm {name}"
    if model.global_pool not in ("token", "avg", "max", "avgmax", "map"):
        return f"pooling '{model.global_pool}'"
    if type(block.mlp.act).__name__ not in ACTIVATIONS:
        return f"activation {type(block.mlp.act).__name__}"
    return None


def resample(name):
    """How timm interpolates the position embeddings of the architecture's weights."""
    if "radio" in name:
        return "bilinear_aligned" if any(part in name for part in _RADIO_ALIGN_CORNERS) else "bilinear"
    return "bilinear" if "flexi" in name else "antialiased"


def entry(name):
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
    assert isinstance(model, VisionTransformer), name
    patch = model.patch_embed.patch_size
    assert patch[0] == patch[1]
    block = model.blocks[0]
    reason = refused(model)
    if reason:
        return dict(refused=reason)
    row = dict(image=list(model.patch_embed.img_size), patch=patch[0], width=model.embed_dim, depth=len(model.blocks),
               heads=block.attn.num_heads)
    norms = [m for m in model.modules() if type(m) is type(block.norm1)]
    assert len({m.eps for m in norms}) == 1, name
    optional = dict(
        eps=(block.norm1.eps, 1e-6), activation=(ACTIVATIONS[type(block.mlp.act).__name__], "gelu"),
        pool=(model.global_pool, "token"), no_embed_class=(model.no_embed_class, False),
        pool_include_prefix=(bool(model.pool_include_prefix), False), resample=(resample(name), "antialiased"),
    )
    return row | {field: value for field, (value, default) in optional.items() if value != default}


table = {}
for name in sorted(list_models()):
    module = _model_to_module[name]
    if module in HERE:
        table[name] = entry(name)
    elif name.startswith(("vit_", "deit")):
        table[name] = module
with open("timm_models.json", "w") as f:
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in table.items())
    f.write("{\n" + rows + "\n}\n")
built = [row for row in table.values() if isinstance(row, dict)]
print(f"timm {timm.__version__}: {len(built)} entry points, {sum('refused' in row for row in built)} of them refused; "
      f"{len(table) - len(built)} of other modules")
