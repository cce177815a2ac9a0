"""Run a parity case: weights and inputs made from names, through our importer and our model."""

from pathlib import Path

import torch

from actcli.models import convert_upstream, create_model


def case_error(parity_dir: Path, case_name: str, source: str, model_name: str, **options) -> float:
    """max |Δlogit| / max |logit| between our model and the recorded logits of a case."""
    from fill import case_inputs, case_weights, load_case, relative_error

    case = load_case(parity_dir / "models" / f"{case_name}.json")
    weights = {name: torch.from_numpy(value) for name, value in case_weights(case).items()}
    model = create_model(model_name, num_classes=len(case["logits"][0]), **options)
    model.load_state_dict(convert_upstream(source, weights))
    model.eval()
    inputs = [as_clip(torch.from_numpy(value), model.num_frames) for value in case_inputs(case).values()]
    with torch.inference_mode():
        return relative_error(model(*inputs).numpy(), case["logits"])


def reference_shapes(parity_dir: Path, case_name: str) -> dict[str, torch.Tensor]:
    """The state dict of a case without its numbers."""
    from fill import load_case

    case = load_case(parity_dir / "models" / f"{case_name}.json")
    return {name: torch.empty(shape, device="meta") for name, shape, _ in case["state_dict"]}


def as_clip(x: torch.Tensor, num_frames: int) -> torch.Tensor:
    """``[B, T * C, H, W]`` or ``[B, C, T, H, W]`` → ``[B, T, C, H, W]``."""
    if x.ndim == 4:
        return x.unflatten(1, (num_frames, -1))
    return x if x.shape[1] == num_frames else x.transpose(1, 2)
