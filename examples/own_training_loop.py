"""Train a plain torchvision network on actcli's shards, without actcli's trainer.

actcli demo && python examples/own_training_loop.py demo/shards/sprites
"""

import sys

import torch
import torchvision

from actcli.loaders import Normalise, open_loader


def main(shards: str) -> None:
    normalise = Normalise(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    with open_loader(shards, split="train", num_frames=4, size=32, batch_size=16, workers=2) as loader:
        network = torchvision.models.resnet18(num_classes=len(loader.classes))
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
        for epoch in range(2):
            loader.set_epoch(epoch)
            for batch in loader:
                frames = normalise(batch.clips[:, 0])  # [B, T, 3, H, W]
                logits = network(frames.flatten(0, 1)).view(*frames.shape[:2], -1).mean(1)
                loss = torch.nn.functional.cross_entropy(logits, batch.labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            print(f"epoch {epoch}: loss {loss.item():.3f}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
