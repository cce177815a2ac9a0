"""From downloaded footage and official annotations to one file of frames per clip."""
