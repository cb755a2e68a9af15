"""The command line: what is typed and printed, a module a command.

May import everything.
"""
