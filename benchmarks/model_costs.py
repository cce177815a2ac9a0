"""Write ``actcli/models/costs.json``: size and cost of every model on every backbone, which ``actcli models`` lists.

python benchmarks/model_costs.py
"""

import json
from dataclasses import asdict

from actcli.models import list_models, profile_model
from actcli.models.costs import COSTS_FILE, NUM_CLASSES, Cost, list_costs


def main() -> None:
    """Count everything anew."""
    costs = []
    for info in list_models():
        for backbone in info.backbones:
            profile = profile_model(info.name, num_classes=NUM_CLASSES, **{**info.options, "backbone": backbone})
            costs.append(
                Cost(
                    info.name,
                    backbone,
                    info.options["num_frames"],
                    profile.parameters,
                    profile.macs,
                    profile.macs_without_attention,
                )
            )
    COSTS_FILE.write_text(json.dumps([asdict(cost) for cost in costs], indent=1) + "\n")
    assert list_costs() == tuple(costs)


if __name__ == "__main__":
    main()
