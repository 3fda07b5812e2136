"""One step for many sessions without the host: static buffers, paged caches, graphs per size."""
