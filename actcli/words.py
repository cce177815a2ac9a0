"""Numbers in sentences; for every part."""


def counted(number: int, noun: str) -> str:
    """``1 clip``, ``2 clips``, ``3 classes``."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{ending}"
