"""The Omni networks, their streaming state, and the engine that runs them."""
