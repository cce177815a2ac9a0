"""Blocks that mix frames: they see ``[N, C, H, W]`` with the frames of a clip next to each other, N = B * T."""
