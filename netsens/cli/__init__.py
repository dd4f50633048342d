"""The command line: one file a command, options shared, no arithmetic. Nothing heavy is imported before a command needs it."""
