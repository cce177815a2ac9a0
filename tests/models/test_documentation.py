"""The page on models says what is true."""

import re
from pathlib import Path

import torch

from actcli.models import create_model, list_models, registry

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def test_every_model_has_its_place_on_the_page():
    text = PAGE.read_text(encoding="utf-8")
    assert [info.name for info in list_models() if f"`{info.name}`" not in text] == []


def test_the_model_shown_on_the_page_works(monkeypatch):
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[-1]
    exec(compile(code, str(PAGE), "exec"), {"__name__": "diffnet"})
    model = create_model("diffnet", num_classes=3, num_frames=2).eval()
    with torch.inference_mode():
        assert model(torch.randn(1, 2, 3, 32, 32)).shape == (1, 3)
    assert model.parameter_policy()
