"""Fused device operations of one decode step, each beside its plain reference of one signature."""
