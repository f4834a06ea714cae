"""Programs to be run from a source tree; they are not installed."""
