"""Files in and out, tables, pictures, progress. Nothing here knows the engine or the command line."""
