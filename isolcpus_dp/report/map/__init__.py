"""`isolcpus-dp map`: the host as a picture.

`model` decides what is drawn. `draw` draws it in the terminal, with rich. `svg` draws it as SVG,
with positions and lines from `layout`, `legend`, `page` and `text`. `file` writes the file.
"""


class PictureError(Exception):
    """The picture cannot be written; the message is one sentence with the reason."""
