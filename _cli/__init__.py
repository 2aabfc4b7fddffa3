"""The command `cogguided`: parse and call, nothing else. One file a command."""
