"""The report of a train job: what it shows, as a page and as pictures."""
