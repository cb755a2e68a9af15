"""The commands of the command line, a module each: `add` its parser, and what it runs."""
