"""What talks to the daemon: the browser page, device clients, benchmarks."""
