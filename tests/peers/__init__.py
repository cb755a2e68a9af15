"""Stand-ins that somebody else wrote, and GoogleSQL's own analyzer: installed, started, asked."""
