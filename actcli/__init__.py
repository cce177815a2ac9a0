"""actcli: from a downloaded action-recognition dataset to a trained and evaluated temporal model."""

__version__ = "0.1.0"
__all__ = ["predict"]


def __getattr__(name: str) -> object:
    """``predict``, brought when it is asked for: what it needs takes seconds to import."""
    if name == "predict":
        from actcli.engine.prediction import predict_videos

        return predict_videos
    raise AttributeError(f"module 'actcli' has no attribute {name!r}")
