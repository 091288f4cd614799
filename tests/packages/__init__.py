"""The packages, as their installation finds them."""
