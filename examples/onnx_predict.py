"""Classify a video with an exported ONNX model: numpy, OpenCV and onnxruntime, no torch and no actcli.

    actcli export --out model.onnx
    python examples/onnx_predict.py model.onnx video.mp4

Frames are the centres of equal parts of the video and the centre crop is taken: the plain test of most models.
"""

import json
import sys

import cv2
import numpy as np
import onnxruntime

NUM_SHOWN = 5


def main(model_path: str, video_path: str) -> None:
    """Print the likeliest classes."""
    session = onnxruntime.InferenceSession(model_path, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["actcli"])
    spec = about["input"]
    if spec["modality"] != "rgb":
        sys.exit("this example shows models of RGB frames")
    frames = read_frames(video_path)
    centres = ((np.arange(spec["num_frames"]) + 0.5) * len(frames) / spec["num_frames"]).astype(int)
    clip = np.stack([prepare(frames[i], spec) for i in centres])[None]  # B T C H W
    [logits] = session.run(None, {session.get_inputs()[0].name: clip})
    scores = np.exp(logits[0] - logits[0].max())
    scores /= scores.sum()
    names = about["classes"] or [str(label) for label in range(len(scores))]
    for label in np.argsort(-scores)[:NUM_SHOWN]:
        print(f"{scores[label]:6.1%}  {names[label]}")


def read_frames(path: str) -> list[np.ndarray]:
    """All frames, BGR."""
    capture, frames = cv2.VideoCapture(path), []
    while True:
        there, frame = capture.read()
        if not there:
            break
        frames.append(frame)
    if not frames:
        sys.exit(f"{path} has no frame that can be read")
    return frames


def prepare(frame: np.ndarray, spec: dict) -> np.ndarray:
    """Short side to the scale of the model's test, centre crop, then as the model wants it: ``[C, H, W]``."""
    size, (height, width) = spec["size"], frame.shape[:2]
    scale = spec["scale_size"] / min(height, width)
    frame = cv2.resize(frame, (max(size, round(width * scale)), max(size, round(height * scale))))
    top, left = (frame.shape[0] - size) // 2, (frame.shape[1] - size) // 2
    pixels = frame[top : top + size, left : left + size]
    if spec["channel_order"] == "rgb":
        pixels = pixels[..., ::-1]
    values = pixels.astype(np.float32) / (255 / spec["value_range"])
    values = (values - np.float32(spec["mean"])) / np.float32(spec["std"])
    return values.transpose(2, 0, 1)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
