"""`isolcpus-dp map`: the host as a picture.

`model` says what is drawn. `draw` draws it in the terminal, with rich. `svg` draws it into a file,
with `layout` and `page` to say where everything is, `text` and `file`.
"""


class PictureError(Exception):
    """The picture cannot be written to where it should go; one sentence says why."""
