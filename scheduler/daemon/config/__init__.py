"""The configuration: one TOML file, read, checked and converted to settings; errors name file, line and key."""
