"""Tests of the loaders, the macros and the command line."""
