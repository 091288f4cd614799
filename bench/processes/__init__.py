"""The processes that the programs of `bench/` measure, and the clients that call them."""
