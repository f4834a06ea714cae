"""The daemon under load beside bare servers and beside another commit of itself, for `bench_daemon --against`."""
