"""Records turned into something to look at: terminal tables and PNG curves. Reads records only."""
