"""Clients that measure a Realtime server from outside."""
