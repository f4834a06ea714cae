"""The words: requests, batches, laws, plans, messages, commands, errors. Imports the standard library only."""
