"""`isolcpus-dp map`: the host as a picture. `model` says what is drawn, `draw` draws it."""


class PictureError(Exception):
    """The picture cannot be written to where it should go; one sentence says why."""
