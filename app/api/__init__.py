"""HTTP in, HTTP out: no SQL, no torch, no file access."""
