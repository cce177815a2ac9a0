"""actcli: from a downloaded action-recognition dataset to a trained and evaluated temporal model."""

__version__ = "0.1.0"
