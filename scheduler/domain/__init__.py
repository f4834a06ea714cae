"""Values of all packages: requests, batches, plans, messages, commands, errors. Imports the standard library only."""
