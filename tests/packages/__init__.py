"""Tests of the packages: their contents, and what installing them does."""
