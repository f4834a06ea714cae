"""What if: recorded or imported traffic through the engine, as a configuration says and with something changed."""
