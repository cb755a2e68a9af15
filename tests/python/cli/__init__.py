"""The command line: its help, its one clear line for whatever is wrong, its exit codes."""
