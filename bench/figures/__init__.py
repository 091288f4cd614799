"""The figures that the programs of `bench/` measure, and the page and picture made from them."""
