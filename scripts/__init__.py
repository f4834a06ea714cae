"""Programs that are run from a source tree; nothing is installed from here."""
