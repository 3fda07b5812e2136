"""The conversation bench: made users, a scripted engine, and what was heard."""
