"""Make `import torchvision` work beside a CPU build of torch.

The torchvision wheel of the package registry is built for CUDA; its compiled library does not load beside a CPU-only
torch, and the Python side then stops at two operators it expects to find. Declaring their schemas is enough: nothing in
this kit calls them. Where torchvision loads by itself, nothing happens here.
"""

import importlib.util
from pathlib import Path

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def declare_missing_operators() -> "torch.library.Library | None":
    """Declare torchvision's operators if its own library cannot load.

    Returns the library object, which the caller must keep alive (the schemas vanish with it), or None when torchvision
    is absent or complete.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or _own_library_loads(Path(spec.origin).parent):
        return None
    library = torch.library.Library("torchvision", "DEF")
    for schema in _SCHEMAS.values():
        library.define(schema)
    return library


def _own_library_loads(folder: Path) -> bool:
    for candidate in folder.glob("_C*.so"):
        try:
            torch.ops.load_library(str(candidate))
        except (OSError, RuntimeError):
            continue
        return True
    return False
