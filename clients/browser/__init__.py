"""The page that the daemon serves, read as package data."""
