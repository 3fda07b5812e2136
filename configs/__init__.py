"""TOML presets as package data; the code that reads them is `daemon.settings`."""
