"""One session's media path: resampling, turn detection, engine calls, playout."""
