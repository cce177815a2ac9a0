"""Video models: made by name, numerically equal to the code they come from.

model = create_model("tsm", num_classes=174, num_frames=8)
logits = model(clip)                      # clip [B, T, 3, H, W], normalised -> [B, num_classes]
"""

from actcli.models import gsf, gsm, lsnet, masnet, stmulnet, tokshift, tsm, tsn, vit  # noqa: F401 (registers them)
from actcli.models.base import InputSpec, VideoModel
from actcli.models.factory import create_from_config, create_model
from actcli.models.importing import ImportReport, IncompleteImport, checkpoint_num_classes, import_checkpoint
from actcli.models.policy import ParameterRule
from actcli.models.profile import ModelProfile, profile_config, profile_model
from actcli.models.registry import ModelInfo, Published, convert_upstream, list_models
from actcli.models.weights import WeightFacts, load_weights, save_weights

__all__ = [
    "ImportReport",
    "IncompleteImport",
    "InputSpec",
    "ModelInfo",
    "ModelProfile",
    "ParameterRule",
    "Published",
    "VideoModel",
    "WeightFacts",
    "checkpoint_num_classes",
    "convert_upstream",
    "create_from_config",
    "create_model",
    "import_checkpoint",
    "list_models",
    "load_weights",
    "profile_config",
    "profile_model",
    "save_weights",
]
