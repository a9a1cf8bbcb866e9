"""Tests; a package, so that none of that name elsewhere stands before it."""
