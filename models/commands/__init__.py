"""Commands of `omnid` that work on models without a server."""
