"""The configuration: one TOML file read, checked and turned into settings; errors that name file, line and key."""
