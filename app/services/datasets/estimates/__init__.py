"""How long jobs that draw images will take, beside what waits already."""
